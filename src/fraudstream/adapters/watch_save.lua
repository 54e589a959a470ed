-- Writes the state of the watch, if the lease is still the writer's: else 0.
-- KEYS  1 lease  2 state
-- ARGV  1 owner  2 state  3 time-to-live (ms)
if call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
