-- Applies one micro-batch, whole or not at all. What can be checked is, before anything is written; that a decision is the
-- first of its transaction is known by storing it, and what was stored is taken back on a conflict.
-- KEYS  1 counters  2 parked labels  3 parked version  4 parked times  5 generations  6 models  7 examples to publish
--       8.. fence and watermark of each partition
-- ARGV  1 parked version seen  2 row time-to-live (ms)  3 decision time-to-live (ms)
--       4 decisions: blob of (slot, id, packed)
--       5 rivals: blob of (slot, id), where the same transaction may lie beyond the edge of a generation
--       6 rows: blob of (key, row)  7 shared updates: blob of (key, place of the update in ARGV)
--       8 census time-to-live (ms)  9 censuses: blob of (key, row)
--       10.. number of: partitions, generations, models, joined labels, counters; then the entries of each, then the
--       updates
local row_ttl, decision_ttl, decisions, rivals, rows, shared = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local partitions_at = 15 -- fence, watermark seen, watermark new
local generations_at = partitions_at + 3 * ARGV[10]
local models_at = generations_at + ARGV[11] -- identity, number
local joined_at = models_at + 2 * ARGV[12] -- slot, id, verdict, example
local counters_at = joined_at + 4 * ARGV[13] -- name, amount
local updates_at = counters_at + 2 * ARGV[14]

-- How the commit ends for a partition; 'open' if it is to be applied.
local function ending(fence_key, watermark_key, fence, seen, new)
  local held = tonumber(call('GET', fence_key) or 0)
  if held > tonumber(fence) then return 'fenced' end
  if held < tonumber(fence) then return 'rewound' end -- the store forgot that this fence was taken
  local applied = call('GET', watermark_key) or '-1'
  if applied == new then return 'applied' end -- the answer to an earlier try of this very commit was lost
  return applied == seen and 'open' or 'rewound'
end
local all
for p = 0, ARGV[10] - 1 do
  local argument = partitions_at + 3 * p
  local own = ending(KEYS[8 + 2 * p], KEYS[9 + 2 * p], ARGV[argument], ARGV[argument + 1], ARGV[argument + 2])
  if all and all ~= own then return {'conflict'} end
  all = own
end
if all ~= 'open' then return {all} end

-- A store that lost data may have given a model's number to another model since.
for m = models_at, joined_at - 1, 2 do
  if call('HGET', KEYS[6], ARGV[m]) ~= ARGV[m + 1] then return {'conflict'} end
end

-- An early label that a store lost since the gather was parked before, and would be told again: joined twice.
for l = joined_at, counters_at - 1, 4 do
  if call('HEXISTS', KEYS[2], ARGV[l + 1]) == 0 then return {'conflict'} end
end

-- An early label that was parked after the gather would be missed.
if (call('GET', KEYS[3]) or '0') ~= ARGV[1] and call('EXISTS', KEYS[2]) == 1 then
  local known = {}
  for l = joined_at, counters_at - 1, 4 do known[ARGV[l + 1]] = true end
  local at = 1
  while at <= #decisions do
    local _, id
    _, id, _, at = unpack_struct(TRIPLE, decisions, at)
    if not known[id] and call('HEXISTS', KEYS[2], id) == 1 then return {'conflict'} end
  end
end

-- The same transaction, decided on the other side of a generation's edge since the gather.
local at = 1
while at <= #rivals do
  local slot, id
  slot, id, at = unpack_struct(PAIR, rivals, at)
  if call('HEXISTS', slot, id) == 1 then return {'conflict'} end
end

local keys, updates, moved = {}, {}, {}
at = 1
while at <= #shared do
  local key, place
  key, place, at = unpack_struct('>I2c0I4', shared, at)
  local update = update_at(updates_at + place)
  local holds, there = heads_hold(key, update)
  if not holds then return {'conflict'} end
  local n = #keys + 1
  keys[n], updates[n], moved[n] = key, update, there
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
  call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now)
  for g = generations_at, models_at - 1 do call('ZADD', KEYS[5], now + decision_ttl, ARGV[g]) end
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
set_all(ARGV[9], ARGV[8])
for n = 1, #keys do apply_update(keys[n], updates[n], moved[n], row_ttl) end
for l = joined_at, counters_at - 1, 4 do
  call('HSET', ARGV[l], verdict_field(ARGV[l + 1]), ARGV[l + 2])
  call('HDEL', KEYS[2], ARGV[l + 1])
  call('ZREM', KEYS[4], ARGV[l + 1])
  call('ZADD', KEYS[7], 0, ARGV[l + 3]) -- for the label role to publish, at once
end
for c = counters_at, updates_at - 1, 2 do call('HINCRBY', KEYS[1], ARGV[c], ARGV[c + 1]) end
for p = 0, ARGV[10] - 1 do call('SET', KEYS[9 + 2 * p], ARGV[partitions_at + 3 * p + 2]) end
return {'applied'}
