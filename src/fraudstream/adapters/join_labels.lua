-- Joins labels with their decisions, and parks those that came first. Each label is its own atomic step.
-- KEYS  1 parked labels  2 parked version  3 parked times  4 generations  5 counters  6 examples to publish
-- ARGV  1 parked labels at most  2 parked time-to-live (ms)  3 row time-to-live (ms)  4 what the keys of slots begin with
--       5 number of joined  6 number of orphans  7 how long an example is left to who joined it (ms), then the entries
local parked_max, parked_ttl, row_ttl, slots = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local joined, orphans = tonumber(ARGV[5]), tonumber(ARGV[6])
-- Waiting labels to give up on in one call at most: a long pause must not make one call long.
local EXPIRED_PER_CALL = 1000
local answers = {}
local i = 8
local now = now_ms()

local function join(slot, id, verdict, example, updates)
  if call('HEXISTS', slot, id) == 0 then return 'conflict' end -- dropped since it was gathered
  local held = call('HGET', slot, verdict_field(id))
  if held then return held == verdict and 'duplicate' or 'changed' end
  for _, update in ipairs(updates) do
    if not heads_hold(update[1], update[2]) then return 'conflict' end
  end
  call('HSET', slot, verdict_field(id), verdict)
  call('ZADD', KEYS[6], now + ARGV[7], example)
  for _, update in ipairs(updates) do apply_update(update[1], update[2], row_ttl) end
  return 'joined'
end

for n = 1, joined do -- slot, id, verdict, example, number of updates, then for each: key, update
  local updates, at = {}, i + 5
  for _ = 1, ARGV[i + 4] do
    local update = update_at(at + 1)
    updates[#updates + 1] = {ARGV[at], update}
    at = update.stop
  end
  answers[n] = join(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], updates)
  i = at
end
if orphans == 0 then return answers end

local generations = call('ZRANGEBYSCORE', KEYS[4], '(' .. now, '+inf')
local expired = call('ZRANGEBYSCORE', KEYS[3], '-inf', now - parked_ttl, 'LIMIT', 0, EXPIRED_PER_CALL)
for _, id in ipairs(expired) do
  call('HDEL', KEYS[1], id)
  call('ZREM', KEYS[3], id)
end
if #expired > 0 then call('HINCRBY', KEYS[5], 'labels.expired', #expired) end

local function park(id, slot, verdict, label)
  for g = 1, #generations do
    if call('HEXISTS', slots .. generations[g] .. ':' .. slot, id) == 1 then return 'conflict' end -- decided meanwhile
  end
  local held = call('HGET', KEYS[1], id)
  if held then return string.sub(held, 1, 1) == verdict and 'duplicate' or 'changed' end
  if call('HLEN', KEYS[1]) >= parked_max then return 'orphan' end
  call('HSET', KEYS[1], id, verdict .. label)
  call('ZADD', KEYS[3], now, id)
  call('INCR', KEYS[2])
  return 'parked'
end

for n = 1, orphans do -- id, number of the slot, verdict, packed label
  answers[joined + n] = park(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  i = i + 4
end
return answers
