#!lua flags=allow-oom
-- usage: what the tenants' ended requests have used, since the lane was made.
--
-- KEYS  1 lane
-- ARGV  1 terms
-- Reply uint32 count, then for each counter: text its name, a colon and the tenant; text its value

local counters = redis.call('HGETALL', key('usage'))
return reply(struct.pack('<I4', #counters / 2) .. pack_texts(counters))
