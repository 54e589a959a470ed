-- Applies one micro-batch, whole or not at all. What can be checked is, before anything is written; that a decision is the
-- first of its transaction is known by storing it, and what was stored is taken back on a conflict.
-- KEYS  1 fence  2 watermark  3 counters  4 parked labels  5 parked version  6 parked times  7 generations  8 models
--       9 examples to publish
-- ARGV  1 fence  2 watermark seen  3 watermark new  4 parked version seen  5 row time-to-live (ms)
--       6 decision time-to-live (ms)  7 decisions: blob of (slot, id, packed)
--       8 rivals: blob of (slot, id), where the same transaction may lie beyond the edge of a generation
--       9 rows: blob of (key, row)  10 shared updates: blob of (key, place of the update in ARGV)
--       11 census time-to-live (ms)  12 censuses: blob of (key, row)
--       13.. number of: generations, models, joined labels, counters; then the entries of each, then the updates
local fence, seen, new, row_ttl, decision_ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[5], ARGV[6]
local decisions, rivals, rows, shared = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local generations_at = 17
local models_at = generations_at + ARGV[13] -- identity, number
local joined_at = models_at + 2 * ARGV[14] -- slot, id, verdict, example
local counters_at = joined_at + 4 * ARGV[15] -- name, amount
local updates_at = counters_at + 2 * ARGV[16]

local held = tonumber(call('GET', KEYS[1]) or 0)
if held > tonumber(fence) then return {'fenced'} end
if held < tonumber(fence) then return {'rewound'} end -- the store forgot that this fence was taken
local applied = call('GET', KEYS[2]) or '-1'
if applied == new then return {'applied'} end -- the answer to an earlier try of this very commit was lost
if applied ~= seen then return {'rewound'} end

-- A store that lost data may have given a model's number to another model since.
for m = models_at, joined_at - 1, 2 do
  if call('HGET', KEYS[8], ARGV[m]) ~= ARGV[m + 1] then return {'conflict'} end
end

-- An early label that a store lost since the gather was parked before, and would be told again: joined twice.
for l = joined_at, counters_at - 1, 4 do
  if call('HEXISTS', KEYS[4], ARGV[l + 1]) == 0 then return {'conflict'} end
end

-- An early label that was parked after the gather would be missed.
if (call('GET', KEYS[5]) or '0') ~= ARGV[4] and call('EXISTS', KEYS[4]) == 1 then
  local known = {}
  for l = joined_at, counters_at - 1, 4 do known[ARGV[l + 1]] = true end
  local at = 1
  while at <= #decisions do
    local _, id
    _, id, _, at = unpack_struct(TRIPLE, decisions, at)
    if not known[id] and call('HEXISTS', KEYS[4], id) == 1 then return {'conflict'} end
  end
end

-- The same transaction, decided on the other side of a generation's edge since the gather.
local at = 1
while at <= #rivals do
  local slot, id
  slot, id, at = unpack_struct(PAIR, rivals, at)
  if call('HEXISTS', slot, id) == 1 then return {'conflict'} end
end

local keys, updates = {}, {}
at = 1
while at <= #shared do
  local key, place
  key, place, at = unpack_struct('>I2c0I4', shared, at)
  local update = update_at(updates_at + place)
  if not heads_hold(key, update) then return {'conflict'} end
  keys[#keys + 1], updates[#updates + 1] = key, update
end

-- The first decision of a transaction wins; one stored elsewhere since the gather is a conflict.
at = 1
while at <= #decisions do
  local first, slot, id, packed = at
  slot, id, packed, at = unpack_struct(TRIPLE, decisions, at)
  if call('HSETNX', slot, id, packed) == 0 then
    local undo = 1
    while undo < first do
      slot, id, packed, undo = unpack_struct(TRIPLE, decisions, undo)
      call('HDEL', slot, id)
    end
    return {'conflict'}
  end
  if call('HLEN', slot) == 1 then call('PEXPIRE', slot, decision_ttl) end
end
if models_at > generations_at then
  local now = now_ms()
  call('ZREMRANGEBYSCORE', KEYS[7], '-inf', now)
  for g = generations_at, models_at - 1 do call('ZADD', KEYS[7], now + decision_ttl, ARGV[g]) end
end
local function set_all(pairs, ttl_ms)
  local at = 1
  while at <= #pairs do
    local key, row
    key, row, at = unpack_struct(PAIR, pairs, at)
    call('SET', key, row, 'PX', ttl_ms)
  end
end
set_all(rows, row_ttl)
set_all(ARGV[12], ARGV[11])
for n = 1, #keys do apply_update(keys[n], updates[n], row_ttl) end
for l = joined_at, counters_at - 1, 4 do
  call('HSET', ARGV[l], verdict_field(ARGV[l + 1]), ARGV[l + 2])
  call('HDEL', KEYS[4], ARGV[l + 1])
  call('ZREM', KEYS[6], ARGV[l + 1])
  call('ZADD', KEYS[9], 0, ARGV[l + 3]) -- for the label role to publish, at once
end
for c = counters_at, updates_at - 1, 2 do call('HINCRBY', KEYS[3], ARGV[c], ARGV[c + 1]) end
call('SET', KEYS[2], new)
return {'applied'}
