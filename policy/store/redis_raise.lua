#!lua flags=allow-oom
-- Raise a shared value. It runs when memory is full too, since it takes away what was permitted.
--
-- KEYS[1] the hash of all values of a kind
-- ARGV    1 name   2 version(16 digits)   3 value
-- Returns 1 raised, 0 there is one of the same version or a higher one.
--
-- A field is version(16 digits) value; anything else makes room.
local field = redis.call('HGET', KEYS[1], ARGV[1])
local version = field and string.match(string.sub(field, 1, 16), '^%d+$')
if version and #version == 16 and tonumber(version) <= 9007199254740991 and tonumber(version) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ARGV[3])
return 1
