#!lua
-- Take a lock, or hold it for longer.
--
-- KEYS[1] the lock
-- ARGV    1 holder   2 lease, ms
-- Returns 1, or 0 where another one has it.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
