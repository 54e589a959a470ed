-- Looks for the decisions and early labels of a batch. Most transactions have neither: only what is there is answered.
-- KEYS  1 parked labels  2 parked version
-- ARGV  1 blob of (slot, id) of those that may have been decided  2 ids of all, as JSON
-- Answers the parked version; position and packed decision ...; position and packed label ... (positions from 0)
local stored, parked = {}, {}
local blob, at, position = ARGV[1], 1, 0
while at <= #blob do
  local slot, id
  slot, id, at = unpack_struct(PAIR, blob, at)
  local decision = call('HGET', slot, id)
  if decision then
    stored[#stored + 1] = position
    stored[#stored + 1] = decision
  end
  position = position + 1
end
if call('EXISTS', KEYS[1]) == 1 then
  local ids = cjson.decode(ARGV[2])
  for first = 1, #ids, UNPACKED_MAX do
    local labels = call('HMGET', KEYS[1], unpack(ids, first, math.min(first + UNPACKED_MAX - 1, #ids)))
    for n = 1, #labels do
      if labels[n] then
        parked[#parked + 1] = first + n - 2
        parked[#parked + 1] = labels[n]
      end
    end
  end
end
return {call('GET', KEYS[2]) or '0', stored, parked}
