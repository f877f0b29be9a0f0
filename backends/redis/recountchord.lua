-- Takes parts that are there twice out of a chord that seemed complete, and counts again. What was counted meanwhile is in it, so
-- that either this task has the chord still, or a later one will.
--
-- KEYS  parts, extra, size, mark
-- ARGV  1 "1": parts are in a sorted set, else in a list; 2 the mark of the task; then pairs: a member to remove, "1" if one like it stays
-- reply as of countchords.lua
local ordered = ARGV[1] == '1'
for i = 3, #ARGV, 2 do
  if ordered then
    redis.call('ZREM', KEYS[1], ARGV[i])
  else -- whole, so that a call may be repeated after a lost reply
    redis.call('LREM', KEYS[1], 0, ARGV[i])
    if ARGV[i + 1] == '1' then redis.call('RPUSH', KEYS[1], ARGV[i]) end
  end
end
local total, current = look(KEYS[2], KEYS[3], KEYS[4])
if current ~= ARGV[2] then return 0 end
if total and (type(total) ~= 'number' or parts(KEYS[1], ordered) >= total) then return total end
redis.call('DEL', KEYS[4])
return 0
