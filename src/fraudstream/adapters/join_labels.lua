-- Settles the records of one partition of labels in order, up to the first one that meets a conflict: joins a label with
-- its decision, parks one that came first, counts each by how it ended. A record that was counted before is not again.
-- KEYS  1 parked labels  2 parked version  3 parked times  4 generations  5 counters  6 settled offsets
--       7 examples to publish
-- ARGV  1 parked labels at most  2 parked time-to-live (ms)  3 row time-to-live (ms)  4 what the keys of slots begin with
--       5 time-to-live (ms) of a late label's verdict  6 partition  7 offset that must have been settled
--       8 how long an example is left to who joined it (ms)  9 number of records, then the records: kind, offset, ...
local parked_max, parked_ttl, row_ttl, slots, late_ttl = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local partition, records = ARGV[6], tonumber(ARGV[9])
local settled = tonumber(call('HGET', KEYS[6], partition) or -1)
if settled < tonumber(ARGV[7]) then return false end -- this store lost data: labels between the two are missing
-- Waiting labels to give up on in one call at most: a long pause must not make one call long.
local EXPIRED_PER_CALL = 1000
local now = now_ms()
local counts = {}

local function count(name, n) counts[name] = (counts[name] or 0) + n end

local function note_example(example) call('ZADD', KEYS[7], now + ARGV[8], example) end

local function verdict_again(held, verdict) return held == verdict and 'duplicate' or 'changed' end

local live
local function is_decided(slot, id)
  live = live or call('ZRANGEBYSCORE', KEYS[4], '(' .. now, '+inf')
  for g = 1, #live do
    if call('HEXISTS', slots .. live[g] .. ':' .. slot, id) == 1 then return true end
  end
  return false
end

local function unpark(id)
  call('HDEL', KEYS[1], id)
  return call('ZREM', KEYS[3], id)
end

local given_up = false
local function give_up()
  if given_up then return end
  given_up = true
  local expired = call('ZRANGEBYSCORE', KEYS[3], '-inf', now - parked_ttl, 'LIMIT', 0, EXPIRED_PER_CALL)
  for _, id in ipairs(expired) do unpark(id) end
  count('labels.expired', #expired)
end

-- Each settles the record whose own arguments begin at `at`; how it ended, and where the next record begins.
local settle = {}

function settle.join(at) -- slot, id, verdict, example, number of updates, then for each: key, update
  local slot, id, verdict = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local updates, stop = {}, at + 5
  for _ = 1, ARGV[at + 4] do
    local update = update_at(stop + 1)
    updates[#updates + 1] = {ARGV[stop], update}
    stop = update.stop
  end
  if call('HEXISTS', slot, id) == 0 then return 'conflict', stop end -- dropped since it was gathered
  local held = call('HGET', slot, verdict_field(id))
  if held then return verdict_again(held, verdict), stop end
  for _, update in ipairs(updates) do
    local holds, moved = heads_hold(update[1], update[2])
    if not holds then return 'conflict', stop end
    update[3] = moved
  end
  call('HSET', slot, verdict_field(id), verdict)
  note_example(ARGV[at + 3])
  for _, update in ipairs(updates) do apply_update(update[1], update[2], update[3], row_ttl) end
  return 'joined', stop
end

function settle.park(at) -- id, number of the slot, verdict, packed label
  local id, slot, verdict, stop = ARGV[at], ARGV[at + 1], ARGV[at + 2], at + 4
  give_up()
  if is_decided(slot, id) then return 'conflict', stop end -- decided meanwhile
  local held = call('HGET', KEYS[1], id)
  if held then return verdict_again(string.sub(held, 1, 1), verdict), stop end
  if call('HLEN', KEYS[1]) >= parked_max then return 'orphan', stop end
  call('HSET', KEYS[1], id, verdict .. ARGV[at + 3])
  call('ZADD', KEYS[3], now, id)
  call('INCR', KEYS[2])
  return 'parked', stop
end

function settle.late(at) -- id, number of the slot, verdict, key of the late labels' verdicts, example
  local id, slot, verdict, verdicts, stop = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], at + 5
  if is_decided(slot, id) then return 'conflict', stop end -- read by the index between our two questions
  local held = call('HGET', verdicts, id)
  if held then return verdict_again(held, verdict), stop end
  call('HSET', verdicts, id, verdict)
  note_example(ARGV[at + 4])
  if call('HLEN', verdicts) == 1 then call('PEXPIRE', verdicts, late_ttl) end
  count('labels.expired', unpark(id)) -- one that was parked while there was no index
  return 'late', stop
end

function settle.reject(at) return 'rejected.' .. ARGV[at], at + 1 end -- reason

local answers, at, settled_before = {}, 10, settled
for n = 1, records do
  local offset, outcome = tonumber(ARGV[at + 1])
  outcome, at = settle[ARGV[at]](at + 2)
  if outcome == 'conflict' then break end
  answers[n] = outcome
  if offset > settled then
    count('labels.' .. outcome, 1)
    settled = offset
  end
end
if settled > settled_before then call('HSET', KEYS[6], partition, settled) end
for name, n in pairs(counts) do
  if n > 0 then call('HINCRBY', KEYS[5], name, n) end
end
return answers
