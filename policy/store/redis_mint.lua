#!lua
-- Mint a single-use token. It never overwrites.
--
-- KEYS[1] the record
-- ARGV    1 how long the key stays, ms: its time to live, and what redeem is told in ARGV[3]   2 value
--         3 a tenure(40), where the caller waits for replicas instead of reading one here
-- Returns 1 minted, 0 there is one already.
--
-- A record is state(1) attempt(16) left(12 digits, ms) tenure(40) value. While the state is 'L', live, attempt and left
-- are room, so that redeem can write into it; 'S', spent, has the attempt that had it, and how long the key was to stay
-- when it did.
--
-- The tenure is the replication id under which it was minted: redeem refuses it under another one.
-- Without flags in its first line a script is refused by a replica, when memory is full and when the
-- disk fails, before it does anything. A replica that is writable is refused here.
local tenure = ARGV[3]
if not tenure then
  local info = redis.call('INFO', 'replication')
  local at = string.find(info, 'master_replid:', 1, true)
  if not at or not string.find(info, 'role:master', 1, true) then
    return redis.error_reply('READONLY not a primary')
  end
  tenure = string.sub(info, at + 14, at + 53)
end
if redis.call('SET', KEYS[1], 'L0000000000000000000000000000' .. tenure .. ARGV[2], 'NX', 'PX', ARGV[1]) then
  return 1
end
return 0
