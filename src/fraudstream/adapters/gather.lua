-- Looks for the decisions and early labels of a batch. Most transactions have neither: only what is there is answered.
-- KEYS  1 parked labels  2 parked version
-- ARGV  1 blob of (slot, id)
-- Answers the parked version, then (position, packed decision or false, packed label or false) ...
local found = {call('GET', KEYS[2]) or '0'}
local any_parked = call('EXISTS', KEYS[1]) == 1
local blob, at, position, n = ARGV[1], 1, 0, 1
while at <= #blob do
  local slot, id
  slot, id, at = unpack_struct(PAIR, blob, at)
  local decision = call('HGET', slot, id)
  local label = any_parked and call('HGET', KEYS[1], id)
  if decision or label then
    found[n + 1], found[n + 2], found[n + 3] = position, decision, label
    n = n + 3
  end
  position = position + 1
end
return found
