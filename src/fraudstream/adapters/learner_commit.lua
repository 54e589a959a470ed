-- Writes the learner's state, whole or not at all.
-- KEYS  1 fence  2 state
-- ARGV  1 fence  2 watermark seen  3 watermark new  4 time-to-live of marks (ms)  5 number of parts, then name and value of
--       each, then (key, transaction id) of each mark
local held = tonumber(call('GET', KEYS[1]) or 0)
if held > tonumber(ARGV[1]) then return 'fenced' end
if held < tonumber(ARGV[1]) then return 'rewound' end -- the store forgot that this fence was taken
if (call('HGET', KEYS[2], 'watermark') or '-1') ~= ARGV[2] then return 'rewound' end
local marks_at = 6 + 2 * ARGV[5]
for i = 6, marks_at - 1, 2 do call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
for i = marks_at, #ARGV, 2 do
  call('HSET', ARGV[i], ARGV[i + 1], '')
  call('PEXPIRE', ARGV[i], ARGV[4])
end
call('HSET', KEYS[2], 'watermark', ARGV[3])
return 'applied'
