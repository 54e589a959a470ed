-- Takes or keeps the lease of the watch: 0 if another worker has it.
-- KEYS  1 lease
-- ARGV  1 owner  2 time-to-live (ms)
-- Read, compare and write in one step: two workers never watch at once for longer than a look takes.
local held = call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
