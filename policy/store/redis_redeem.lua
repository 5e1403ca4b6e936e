#!lua flags=allow-oom
-- Redeem a single-use token: the first attempt gets its value, the same attempt gets it again for a while.
-- It runs when memory is full too, since what is stored must stay redeemable.
--
-- KEYS[1] the record (see redis_mint.lua)   KEYS[2] its value, for the attempt that had it
-- ARGV    1 attempt(16)   2 replay window, ms: 0 keeps no value   3 how long a spent record stays past its expiry, ms
-- Returns the value, or 0 unknown, 1 fenced, 2 expired, 3 spent.
local record = redis.call('GET', KEYS[1])
if not record then
  return 0
end
local info = redis.call('INFO', 'replication')
if not string.find(info, 'role:master', 1, true) then
  return redis.error_reply('READONLY not a primary')
end
local tenure = string.match(info, 'master_replid:(%x+)')
if string.sub(record, 2, 41) ~= tenure then
  return 1
end
local digits = string.sub(record, 42, 56)
local state = string.sub(record, 1, 1)
if state == 'S' then
  if string.sub(record, 57) == ARGV[1] then
    return redis.call('GET', KEYS[2]) or 3
  end
  return 3
end
if state ~= 'L' then
  return redis.error_reply('ERR not a record')
end
local time = redis.call('TIME')
local left = tonumber(digits) - (time[1] * 1000 + math.floor(time[2] / 1000))
if left <= 0 then
  return 2
end
local value = string.sub(record, 57)
redis.call('SET', KEYS[1], 'S' .. tenure .. digits .. ARGV[1], 'PX', string.format('%.0f', left + ARGV[3]))
if ARGV[2] ~= '0' then
  redis.call('SET', KEYS[2], value, 'PX', ARGV[2])
end
return value
