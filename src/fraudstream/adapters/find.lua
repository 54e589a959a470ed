-- Looks for decisions of any generation, the earliest first.
-- KEYS  1 generations
-- ARGV  1 what the keys of slots begin with  2 blob of (number of the slot, id)
local generations = call('ZRANGEBYSCORE', KEYS[1], '(' .. now_ms(), '+inf')
table.sort(generations, function(a, b) return tonumber(a) < tonumber(b) end)
local found = {}
local blob, at = ARGV[2], 1
while at <= #blob do
  local slot, id
  slot, id, at = unpack_struct(PAIR, blob, at)
  local decision = false
  for g = 1, #generations do
    decision = decision or call('HGET', ARGV[1] .. generations[g] .. ':' .. slot, id)
  end
  found[#found + 1] = decision
end
return found
