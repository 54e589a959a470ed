-- Joined labels whose example nobody is known to have published, claimed for a while by who asks.
-- KEYS  1 examples to publish
-- ARGV  1 how many at most  2 how long they are claimed (ms)
local now = now_ms()
local found = call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, example in ipairs(found) do call('ZADD', KEYS[1], now + ARGV[2], example) end
return found
