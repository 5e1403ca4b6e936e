#!lua flags=allow-oom
-- Keep the answer of a call. It runs when memory is full too, since what it is the answer of has taken place.
--
-- KEYS[1] the record (see redis_begin.lua)   KEYS[2] the answer
-- ARGV    1 attempt(16)   2 answer
-- Returns 1 it is kept, by this call or an earlier one of this attempt, 0 the attempt is not the owner.
local record = redis.call('GET', KEYS[1])
if not record then
  return 0
end
local state = string.sub(record, 1, 1)
if #record ~= 94 or not string.find(record, '^[BTK]') or not string.find(record, '^%d+$', 50) then
  return redis.error_reply('ERR not a record')
end
local time = redis.call('TIME')
local left = tonumber(string.sub(record, 50, 64)) - (time[1] * 1000 + math.floor(time[2] / 1000))
if left <= 0 or string.sub(record, 2, 17) ~= ARGV[1] then
  return 0
end
if state ~= 'K' then
  redis.call('SET', KEYS[2], ARGV[2], 'PX', string.format('%.0f', left))
  redis.call('SET', KEYS[1], 'K' .. string.sub(record, 2), 'KEEPTTL')
end
return 1
