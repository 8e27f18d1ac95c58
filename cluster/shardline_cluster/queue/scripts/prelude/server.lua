-- What only the server knows: its clock and its identity. Tests load another file in this place, with which hours pass
-- in no time and a server becomes another one without a restart.

-- Milliseconds since 1970, an integer.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- One life of a server process. A replica that attaches changes the replication id, but not this.
local function server_identity()
  return redis.call('INFO', 'server'):match('run_id:(%x+)')
end
