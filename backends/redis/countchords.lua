-- Counts finished parts of chords.
--
-- KEYS  for each part four of its chord: parts, extra, size, mark
-- ARGV  1 seconds to keep (0: for ever), 2 "1": parts are in a sorted set, else in a list, 3 seconds to keep the mark
--       for each part four: score, member, length of what the members of this task begin with, mark to set
-- reply for each part 0, or -1 if no size of its chord is stored, or the number of parts if the chord is complete by it, or a text if
--       what is stored of it makes no sense
--
-- In the sorted set the outcomes of one task are neighbours: same score, same beginning. So a part that ran twice is found without
-- a search. In a list it stays until all are read (recountchord.lua).
local ttl, ordered = ARGV[1], ARGV[2] == '1'
local kind = ordered and 'zset' or 'list'

local function add(key, score, member, length)
  if not ordered then
    redis.call('RPUSH', key, member)
    return
  end
  if redis.call('ZADD', key, score, member) == 0 then return end
  local rank = redis.call('ZRANK', key, member)
  local beginning = string.sub(member, 1, length)
  for _, other in ipairs(redis.call('ZRANGE', key, math.max(rank - 1, 0), rank + 1)) do
    if other ~= member and string.sub(other, 1, length) == beginning then redis.call('ZREM', key, other) end
  end
end

local function count(members, extra, size, mark, score, member, length, name)
  local total, current = look(extra, size, mark)
  if current == 'ended' then return 0 end
  local found = redis.call('TYPE', members).ok
  if found == 'none' or found == kind then
    add(members, score, member, length)
  else
    total = members .. ' is a ' .. found .. ' and not a ' .. kind .. ': all workers must have the same result_chord_ordered'
  end
  if ttl ~= '0' then
    for _, key in ipairs({members, extra, size}) do redis.call('EXPIRE', key, ttl) end
  end
  if not total then return current and 0 or -1 end
  if type(total) == 'number' and parts(members, ordered) < total then return 0 end
  if current and current ~= name then return 0 end
  redis.call('SET', mark, name, 'EX', ARGV[3])
  return total
end

local states = {}
for i = 0, #KEYS / 4 - 1 do
  states[i + 1] = count(KEYS[4 * i + 1], KEYS[4 * i + 2], KEYS[4 * i + 3], KEYS[4 * i + 4],
    ARGV[4 * i + 4], ARGV[4 * i + 5], tonumber(ARGV[4 * i + 6]), ARGV[4 * i + 7])
end
return states
