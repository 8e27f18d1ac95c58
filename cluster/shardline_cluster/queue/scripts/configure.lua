#!lua flags=allow-oom
-- configure: sets what the lane takes in, and the weights of its tenants.
--
-- KEYS  1 lane
-- ARGV  1 terms · 2 max waiting requests · 3 max waiting tokens · 4 max waiting bytes · 5 tokens of the largest deployed
--       shape (empty: not known) · 6 … pairs of tenant and weight
-- Reply nothing

redis.call('HSET', LANE, 'max_waiting_requests', ARGV[2], 'max_waiting_tokens', ARGV[3], 'max_waiting_bytes', ARGV[4],
  'largest_request_tokens', ARGV[5])
redis.call('DEL', key('weights'))
for i = 6, #ARGV, UNPACK_LIMIT do
  redis.call('HSET', key('weights'), unpack(ARGV, i, math.min(i + UNPACK_LIMIT - 1, #ARGV)))
end
return reply()
