#!lua
-- Try all that the other scripts and commands need, with the same rights, and say how the server stands.
-- A server that would refuse one of them refuses this one.
--
-- KEYS[1] a key that is written and removed
-- Returns {role, replication id, INFO's text on memory or what refused it}; or {'noinfo'}.
local info = redis.pcall('INFO', 'replication')
if type(info) == 'table' then
  return {'noinfo'}
end
redis.call('TIME')
redis.call('SET', KEYS[1], '1', 'NX', 'PX', '1000')
redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
local memory = redis.pcall('INFO', 'memory')
if type(memory) == 'table' then
  memory = ''
end
return {
  string.match(info, 'role:(%a+)') or '',
  string.match(info, 'master_replid:(%x+)') or '',
  string.match(memory, 'maxmemory_policy:([%w-]+)') or '',
}
