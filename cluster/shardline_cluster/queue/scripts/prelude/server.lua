-- What only the server knows: its clock and its identity. Tests load another file in this place, with which hours pass
-- in no time and a server becomes another one without a restart.

-- Milliseconds since 1970, an integer.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- One life of a server process, and of the lane in it: its run id, and the instant at which the lane was made, which a
-- server that is emptied while it runs forgets like everything else. A replica that attaches changes neither.
local function server_identity()
  local born = redis.call('HGET', KEYS[1], 'born')
  if not born then
    local time = redis.call('TIME')
    born = string.format('%x-%x', time[1], time[2])
    redis.call('HSET', KEYS[1], 'born', born)
  end
  return redis.call('INFO', 'server'):match('run_id:(%x+)') .. '-' .. born
end
