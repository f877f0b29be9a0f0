package redis

import (
	"strconv"
	"strings"

	"github.com/gelery/gelery/protocol"
)

// sep joins queue and priority step in list names, and the fields of binding members.
const defaultSep = "\x06\x16"

// tagPrefix marks the claims of Go workers among the tags in unacked: theirs are renewed, so a stale one is dead.
const tagPrefix = "gelery:"

// keys names every key of the transport. Python peers must agree on all of them but those that begin with _gelery, which are ours.
type keys struct {
	prefix       string // global_keyprefix
	sep          string
	steps        []int // priority steps, ascending
	unacked      string
	unackedIndex string
	fanoutPrefix string // "/0." by default
	fanoutRoutes bool   // append "/routing key" to channels (fanout_patterns)
}

// list is the list of a queue's priority step.
func (k *keys) list(queue string, step int) string {
	if step == 0 {
		return k.prefix + queue
	}
	return k.prefix + queue + k.sep + strconv.Itoa(step)
}

// lists are all lists of a queue, first served first.
func (k *keys) lists(queue string) []string {
	names := make([]string, len(k.steps))
	for i, s := range k.steps {
		names[i] = k.list(queue, s)
	}
	return names
}

// step maps a priority to its step: the largest step not above the priority clamped to 0…9. Lower is served first.
func (k *keys) step(priority int) int {
	priority = min(max(priority, 0), 9)
	step := 0
	for _, s := range k.steps {
		if s <= priority {
			step = s
		}
	}
	return step
}

// listFor is the list a message of this queue belongs to.
func (k *keys) listFor(queue string, p *protocol.Properties) string {
	return k.list(queue, k.step(p.Priority))
}

func (k *keys) binding(exchange string) string { return k.prefix + "_kombu.binding." + exchange }

func (k *keys) unackedKey() string      { return k.prefix + k.unacked }
func (k *keys) unackedIndexKey() string { return k.prefix + k.unackedIndex }

// quarantine is the list of a queue's messages that could not be handled. Gelery's own.
func (k *keys) quarantine(queue string) string { return k.prefix + "_gelery.quarantine." + queue }

// delayed is the sorted set of what is to come back to a list later: tags of unacked by the time in unix seconds.
// Gelery's own.
func (k *keys) delayed(list string) string {
	return k.prefix + "_gelery.delayed." + strings.TrimPrefix(list, k.prefix)
}

// delayedSets are the sets of all lists of a queue, in the order of lists.
func (k *keys) delayedSets(queue string) []string {
	sets := k.lists(queue)
	for i := range sets {
		sets[i] = k.delayed(sets[i])
	}
	return sets
}

// once is what is left of a message that a list takes once, see onceScript. Gelery's own.
func (k *keys) once(list, id string) string {
	return k.prefix + "_gelery.once." + strings.TrimPrefix(list, k.prefix) + "." + id
}

// publisher is a client's marker, see publishScript. Gelery's own.
func (k *keys) publisher(client string) string { return k.prefix + "_gelery.publisher." + client }

// channel is the pub/sub channel of a fanout exchange.
func (k *keys) channel(exchange, routingKey string) string {
	c := k.prefix + k.fanoutPrefix + exchange
	if k.fanoutRoutes && routingKey != "" {
		c += "/" + routingKey
	}
	return c
}

// pattern is the channel pattern of a binding key: "#" becomes "*". Kombu subscribes with PSUBSCRIBE always. "*" stays
// a wildcard, as in binding keys; everything else a name may hold is literal.
func (k *keys) pattern(exchange, bindingKey string) string {
	literal := *k
	literal.prefix = globLiteral.Replace(k.prefix)
	key := strings.NewReplacer("#", "*", `?`, `\?`, `[`, `\[`, `]`, `\]`, `\`, `\\`).Replace(bindingKey)
	return literal.channel(globLiteral.Replace(exchange), key)
}

// globLiteral escapes text for the glob patterns of PSUBSCRIBE and SCAN.
var globLiteral = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`, `\`, `\\`)
