#!lua
-- Mint a single-use token. It never overwrites.
--
-- KEYS[1] the record
-- ARGV    1 time to live, ms   2 how long an expired record stays, ms   3 value
-- Returns 1 minted, 0 there is one already.
--
-- A record is 'L' tenure(40) expires(15 digits, ms) value while it is live, and
-- 'S' tenure(40) expires(15 digits, ms) attempt(16) when it is spent (redis_redeem.lua).
--
-- The tenure is the replication id under which it was minted: redeem refuses it under another one.
-- Without flags in its first line a script is refused by a replica, when memory is full and when the
-- disk fails, before it does anything. A replica that is writable is refused here.
local info = redis.call('INFO', 'replication')
local tenure = string.match(info, 'master_replid:(%x+)')
if not tenure or #tenure ~= 40 or not string.find(info, 'role:master', 1, true) then
  return redis.error_reply('READONLY not a primary')
end
local time = redis.call('TIME')
local expires = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
local record = 'L' .. tenure .. string.format('%015.0f', expires) .. ARGV[3]
if redis.call('SET', KEYS[1], record, 'NX', 'PX', string.format('%.0f', ARGV[1] + ARGV[2])) then
  return 1
end
return 0
