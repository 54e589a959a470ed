-- Takes the lease of a partition: a fence number that is larger than any given before, then the watermark.
-- KEYS  1 fence  2 watermark
-- The clock's milliseconds, not a count: a Redis that lost its data would count the same numbers again, and two workers
-- would hold one. Counted on only where two leases fall into one millisecond, or the clock was set back.
local fence = math.max(tonumber(call('GET', KEYS[1]) or 0) + 1, now_ms())
call('SET', KEYS[1], string.format('%.0f', fence))
return {fence, call('GET', KEYS[2])}
