-- Drops the learner's state for a new epoch that begins at an offset. Answers the epoch, or false without the lease.
-- KEYS  1 fence  2 state
-- ARGV  1 fence  2 watermark
if call('GET', KEYS[1]) ~= ARGV[1] then return false end
local epoch, slots = tonumber(call('HGET', KEYS[2], 'epoch') or 0) + 1, call('HGET', KEYS[2], 'slots')
call('DEL', KEYS[2])
call('HSET', KEYS[2], 'epoch', epoch, 'slots', slots, 'watermark', ARGV[2])
return epoch
