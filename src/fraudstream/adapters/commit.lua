-- Applies one micro-batch, whole or not at all. Everything is checked before anything is written.
-- KEYS  1 fence  2 watermark  3 counters  4 parked labels  5 parked version  6 generations
-- ARGV  1 fence  2 watermark seen  3 watermark new  4 parked version seen  5 row time-to-live (ms)
--       6 decision time-to-live (ms)  7.. number of: decisions, generations, rows, shared updates, joined labels, counters
--       then the entries of each, in this order
local fence, seen, new = ARGV[1], ARGV[2], ARGV[3]
local row_ttl, decision_ttl = ARGV[5], ARGV[6]
local decisions, generations, rows, shared, joined, counters =
  tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])

if redis.call('GET', KEYS[1]) ~= fence then return {'fenced'} end
local applied = redis.call('GET', KEYS[2]) or '-1'
if applied == new then return {'applied'} end -- the answer to an earlier try of this very commit was lost
if applied ~= seen then return {'rewound', applied} end

-- Entries: decision = key, id, packed, '1' if the key's time-to-live must be set.
local decisions_at = 13
local generations_at = decisions_at + 4 * decisions -- generation, expiry
local rows_at = generations_at + 2 * generations -- key, row
local shared_at = rows_at + 2 * rows -- key, heads seen, heads new, row bytes, number of clears, number of tokens, ...

-- An early label that was parked after the gather would be missed.
if (redis.call('GET', KEYS[5]) or '0') ~= ARGV[4] and redis.call('EXISTS', KEYS[4]) == 1 then
  for i = decisions_at, generations_at - 1, 4 do
    if redis.call('HEXISTS', KEYS[4], ARGV[i + 1]) == 1 then return {'conflict'} end
  end
end

-- Moved heads give slots to other tiles: the additions would land in the wrong ones.
local i = shared_at
local headers = {}
for n = 1, shared do
  local key, heads = ARGV[i], ARGV[i + 1]
  local found = redis.call('GETRANGE', key, 0, ARGV[i + 3] - 1)
  if found ~= heads then return {'conflict'} end
  headers[n] = i
  i = i + 7 + 2 * ARGV[i + 5] + ARGV[i + 6]
end
local joined_at = i
local counters_at = joined_at + 3 * joined

-- The first decision of a transaction wins; a second one at the same time from elsewhere is a conflict.
for d = decisions_at, generations_at - 1, 4 do
  if redis.call('HSETNX', ARGV[d], 'D' .. ARGV[d + 1], ARGV[d + 2]) == 0 then
    for undo = decisions_at, d - 4, 4 do redis.call('HDEL', ARGV[undo], 'D' .. ARGV[undo + 1]) end
    return {'conflict'}
  end
  if ARGV[d + 3] == '1' then redis.call('PEXPIRE', ARGV[d], decision_ttl) end
end
for g = generations_at, rows_at - 1, 2 do redis.call('ZADD', KEYS[6], ARGV[g + 1], ARGV[g]) end
for r = rows_at, shared_at - 1, 2 do redis.call('SET', ARGV[r], ARGV[r + 1], 'PX', row_ttl) end
for n = 1, shared do
  i = headers[n]
  local key, heads_new, clears, tokens = ARGV[i], ARGV[i + 2], ARGV[i + 5], ARGV[i + 6]
  if ARGV[i + 1] == '' then redis.call('SETRANGE', key, ARGV[i + 4] - 1, '\0') end
  i = i + 7
  for _ = 1, clears do
    redis.call('SETRANGE', key, ARGV[i], string.rep('\0', ARGV[i + 1]))
    i = i + 2
  end
  if heads_new ~= '' then redis.call('SETRANGE', key, 0, heads_new) end
  if tonumber(tokens) > 0 then redis.call('BITFIELD', key, 'OVERFLOW', 'SAT', unpack(ARGV, i, i + tokens - 1)) end
  if heads_new ~= '' then redis.call('PEXPIRE', key, row_ttl) end
end
for l = joined_at, counters_at - 1, 3 do -- decision key, id, verdict
  redis.call('HSET', ARGV[l], 'L' .. ARGV[l + 1], ARGV[l + 2])
  redis.call('HDEL', KEYS[4], ARGV[l + 1])
end
for c = counters_at, counters_at + 2 * counters - 1, 2 do redis.call('HINCRBY', KEYS[3], ARGV[c], ARGV[c + 1]) end
redis.call('SET', KEYS[2], new)
return {'applied'}
