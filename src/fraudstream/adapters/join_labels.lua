-- Joins labels with their decisions, and parks those that came first. Each label is its own atomic step.
-- KEYS  1 parked labels  2 parked version
-- ARGV  1 parked labels at most  2 number of joined  3 number of orphans  4 row time-to-live (ms), then the entries
local parked_max, joined, orphans, row_ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local answers = {}
local i = 5

local function join(first)
  -- decision key, id, verdict, number of shared updates, updates as in commit.lua
  local held = redis.call('HGET', ARGV[first], 'L' .. ARGV[first + 1])
  if held then return held == ARGV[first + 2] and 'duplicate' or 'changed' end
  local at = first + 4
  for _ = 1, ARGV[first + 3] do
    if redis.call('GETRANGE', ARGV[at], 0, ARGV[at + 3] - 1) ~= ARGV[at + 1] then return 'conflict' end
    at = at + 7 + 2 * ARGV[at + 5] + ARGV[at + 6]
  end
  redis.call('HSET', ARGV[first], 'L' .. ARGV[first + 1], ARGV[first + 2])
  at = first + 4
  for _ = 1, ARGV[first + 3] do
    local key, heads_new, clears, tokens = ARGV[at], ARGV[at + 2], ARGV[at + 5], ARGV[at + 6]
    if ARGV[at + 1] == '' then redis.call('SETRANGE', key, ARGV[at + 4] - 1, '\0') end
    at = at + 7
    for _ = 1, clears do
      redis.call('SETRANGE', key, ARGV[at], string.rep('\0', ARGV[at + 1]))
      at = at + 2
    end
    if heads_new ~= '' then redis.call('SETRANGE', key, 0, heads_new) end
    if tonumber(tokens) > 0 then redis.call('BITFIELD', key, 'OVERFLOW', 'SAT', unpack(ARGV, at, at + tokens - 1)) end
    if heads_new ~= '' then redis.call('PEXPIRE', key, row_ttl) end
    at = at + tokens
  end
  return 'joined'
end

for n = 1, joined do
  answers[n] = join(i)
  local at = i + 4
  for _ = 1, ARGV[i + 3] do at = at + 7 + 2 * ARGV[at + 5] + ARGV[at + 6] end
  i = at
end

for n = 1, orphans do -- id, packed label, number of decision keys, decision keys
  local found = false
  for k = i + 3, i + 2 + ARGV[i + 2] do found = found or redis.call('HEXISTS', ARGV[k], 'D' .. ARGV[i]) == 1 end
  if found then
    answers[joined + n] = 'conflict'
  elseif redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    answers[joined + n] = 'duplicate'
  elseif redis.call('HLEN', KEYS[1]) >= parked_max then
    answers[joined + n] = 'orphan'
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    redis.call('INCR', KEYS[2])
    answers[joined + n] = 'parked'
  end
  i = i + 3 + ARGV[i + 2]
end
return answers
