#!lua
-- Try all that the other scripts and commands need, with the same rights, and say how the server stands.
-- A server that would refuse one of them refuses this one.
--
-- KEYS[1] a key that is written and removed
-- Returns {role, replication id, maxmemory-policy}: what cannot be read is empty, the role 'noinfo'.
local info = redis.pcall('INFO', 'replication')
redis.call('TIME')
redis.call('SET', KEYS[1], '1', 'PX', '1000')
redis.call('SETRANGE', KEYS[1], '0', '2')
redis.call('PTTL', KEYS[1])
redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'f', '1')
redis.call('HGET', KEYS[1], 'f')
redis.call('HGETALL', KEYS[1])
redis.call('DEL', KEYS[1])
local memory = redis.pcall('INFO', 'memory')
if type(memory) == 'table' then
  memory = ''
end
local eviction = string.match(memory, 'maxmemory_policy:([%w-]+)') or ''
if type(info) == 'table' then
  return {'noinfo', '', eviction}
end
return {
  string.match(info, 'role:(%a+)') or '',
  string.match(info, 'master_replid:(%x+)') or '',
  eviction,
}
