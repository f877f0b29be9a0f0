//go:build unix

package faults

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/version"
)

// appendOnly reads the append-only file of a Redis while it grows: all that anybody has written, in order. So it knows of each
// task's message where it is, and what took it from there. It reads the parts of the file that Redis 7 and later keep
// (appendonlydir/appendonly.aof.1.incr.aof, 2, …).
type appendOnly struct {
	dir   string // of the server
	queue string

	mu    sync.Mutex
	part  int                 // which is read
	at    int64               // as far as it has been read: a killed server cuts off no more than what follows a whole transaction
	lists map[string][]string // ids by list, what is popped from the right first
	held  map[string]string   // ids in unacked, by tag
	trail map[string]string   // by id: the commands that moved it
	err   error               // what could not be read or understood, after which nothing is known
}

func newAppendOnly(dir, queue string) *appendOnly {
	return &appendOnly{dir: dir, queue: queue, part: 1, lists: map[string][]string{}, held: map[string]string{}, trail: map[string]string{}}
}

// keepsParts ends the test where Redis writes no file that appendOnly can read.
func keepsParts(t *testing.T, rdb *goredis.Client) {
	t.Helper()
	info, err := rdb.InfoMap(t.Context(), "server").Result()
	if err != nil {
		t.Fatal(err)
	}
	text := info["Server"]["redis_version"]
	if v, ok := version.Parse(text); !ok || v.Before(7, 0, 0) {
		t.Fatalf("this test needs Redis 7.0 or later, which keeps its append-only file in appendonlydir; the server is Redis %q", text)
	}
}

// follow reads until the context ends. A part is gone when the one after it has been rewritten, so the server must rewrite none
// by itself (auto-aof-rewrite-percentage 0).
func (a *appendOnly) follow(ctx context.Context) {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for ctx.Err() == nil {
		a.read()
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// read goes on to the end of what is there.
func (a *appendOnly) read() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.err == nil {
		_, err := os.Stat(a.name(a.part + 1)) // if there is one, nothing more comes into this one
		if a.err = a.readPart(); a.err != nil || err != nil {
			return
		}
		a.part, a.at = a.part+1, 0
	}
}

func (a *appendOnly) name(part int) string {
	return filepath.Join(a.dir, "appendonlydir", fmt.Sprintf("appendonly.aof.%d.incr.aof", part))
}

func (a *appendOnly) readPart() error {
	f, err := os.Open(a.name(a.part))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(a.at, io.SeekStart); err != nil {
		return err
	}
	in := &commands{Reader: bufio.NewReaderSize(f, 1<<16)}
	for {
		step, err := in.transaction()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // perhaps in the middle of one: it is read again
			return nil
		}
		if err == nil {
			err = a.apply(step)
		}
		if err != nil {
			return fmt.Errorf("%s after %d bytes: %w", f.Name(), a.at, err)
		}
		a.at += in.size
	}
}

// commands reads what Redis writes: arrays of bulk strings.
type commands struct {
	*bufio.Reader
	size int64 // of the last transaction
}

// transaction is the next command, or those of a script or a MULTI, which happen together.
func (c *commands) transaction() (step [][]string, err error) {
	c.size = 0
	for open := false; ; {
		command, err := c.command()
		if err != nil {
			return nil, err
		}
		switch strings.ToUpper(command[0]) {
		case "MULTI":
			open = true
		case "EXEC":
			return step, nil
		default:
			step = append(step, command)
			if !open {
				return step, nil
			}
		}
	}
}

func (c *commands) command() ([]string, error) {
	n, err := c.number('*')
	if err != nil {
		return nil, err
	}
	command := make([]string, n)
	for i := range command {
		size, err := c.number('$')
		if err != nil {
			return nil, err
		}
		text := make([]byte, size+2)
		if _, err := io.ReadFull(c, text); err != nil {
			return nil, err
		}
		c.size += int64(len(text))
		command[i] = string(text[:size])
	}
	if n == 0 {
		return nil, errors.New("a command without a name")
	}
	return command, nil
}

// number reads a line of a sign and a number.
func (c *commands) number(sign byte) (int, error) {
	line, err := c.ReadString('\n')
	if err != nil {
		return 0, err
	}
	c.size += int64(len(line))
	n, err := strconv.ParseUint(strings.TrimSuffix(line[1:], "\r\n"), 10, 29)
	if err != nil || line[0] != sign {
		return 0, fmt.Errorf("%q; expected %c and a number", line, sign)
	}
	return int(n), nil
}

// apply does what happened together.
func (a *appendOnly) apply(step [][]string) error {
	popped := !slices.ContainsFunc(step, func(command []string) bool { return !strings.EqualFold(command[0], "RPOP") || len(command) > 2 })
	for _, command := range step {
		name, args := strings.ToUpper(command[0]), command[1:]
		if popped {
			name = alone
		}
		switch key := append(args, "")[0]; {
		case key == "unacked":
			a.hash(name, args[1:])
		case key == a.queue || strings.HasPrefix(key, a.queue+"\x06\x16") || key == "_gelery.quarantine."+a.queue:
			if err := a.list(name, key, args[1:]); err != nil {
				return fmt.Errorf("%.200q: %w", command, err)
			}
		case name == "FLUSHALL" || name == "FLUSHDB" || name == "SELECT" && key != "0":
			return fmt.Errorf("%q", command)
		}
	}
	return nil
}

// alone is how a trail calls what only Python does: RPOP of one message and nothing else with it (BRPOP is written so). A Go worker's
// claim says how many it pops, and records them in unacked in the same transaction.
const alone = "BRPOP"

func (a *appendOnly) list(name, key string, args []string) error {
	list := a.lists[key]
	switch name {
	case "LPUSH", "RPUSH":
		for _, message := range args {
			id := a.moved(message, name)
			if name == "LPUSH" {
				list = append(list, id)
			} else {
				list = slices.Insert(list, 0, id)
			}
		}
	case "RPOP", alone:
		n := 1
		if len(args) > 0 {
			n, _ = strconv.Atoi(args[0])
		}
		if n = min(n, len(list)); n == 0 {
			return errors.New("nothing is known to be there")
		}
		for _, id := range list[:n] {
			a.trail[id] += " " + name
		}
		list = list[n:]
	case "LMOVE", "BLMOVE", "RPOPLPUSH", "BRPOPLPUSH": // a Go worker waits: from its end to its end
		if args[0] != key || len(args) < 3 || !strings.EqualFold(args[1], args[2]) {
			return errors.New("to elsewhere")
		}
	default:
		return errors.New("an unknown command")
	}
	a.lists[key] = list
	return nil
}

func (a *appendOnly) hash(name string, args []string) {
	switch name {
	case "HSET":
		for i := 0; i+1 < len(args); i += 2 {
			a.held[args[i]] = a.moved(args[i+1], name)
		}
	case "HDEL":
		for _, tag := range args {
			if id, ok := a.held[tag]; ok {
				a.trail[id] += " " + name
				delete(a.held, tag)
			}
		}
	}
}

// moved notes what happened to a message, and returns the id of its task.
func (a *appendOnly) moved(message, name string) string {
	_, rest, _ := strings.Cut(message, `"correlation_id": "`)
	id, _, _ := strings.Cut(rest, `"`)
	a.trail[id] += " " + name
	return id
}

// poppedAlone tells whether the last that was written of a task's message is that Python has popped it: it was in no list any more,
// and not yet in unacked, and only Python ever had it there.
func (a *appendOnly) poppedAlone(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.HasSuffix(a.trail[id], " "+alone)
}

// told is the history of a task's message, for who misses it.
func (a *appendOnly) told(id string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.trail[id] == "" {
		return id + ": Redis has never written it"
	}
	return id + ":" + a.trail[id]
}

func (a *appendOnly) failed() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// TestAppendOnly reads a file that grows, is cut off by a kill in the middle of a transaction, and goes on.
func TestAppendOnly(t *testing.T) {
	t.Parallel()
	write := func(commands ...string) (out []byte) {
		for _, c := range commands {
			words := strings.Fields(c)
			out = fmt.Appendf(out, "*%d\r\n", len(words))
			for _, w := range words {
				w = strings.ReplaceAll(w, "~", " ")
				out = fmt.Appendf(out, "$%d\r\n%s\r\n", len(w), w)
			}
		}
		return out
	}
	message := func(id string) string { return `{"correlation_id":~"` + id + `"}` }
	a := newAppendOnly(t.TempDir(), "q")
	if err := os.Mkdir(filepath.Dir(a.name(1)), 0o700); err != nil {
		t.Fatal(err)
	}
	put := func(part int, text []byte) {
		if err := os.WriteFile(a.name(part), text, 0o600); err != nil {
			t.Fatal(err)
		}
		a.read()
	}
	text := write("SELECT 0", "LPUSH q "+message("a"), "LPUSH q "+message("b"), "LPUSH q "+message("c")+" "+message("d"),
		"LMOVE q q right right", "RPOP q", "MULTI", "RPOP q 1", "HSET unacked t1 "+message("b"), "ZADD unacked.index 1 t1", "EXEC")
	more := write("MULTI", "HDEL unacked t1", "RPUSH q "+message("b"), "EXEC", "RPOP q", "RPOP q")
	put(1, text)
	put(1, append(bytes.Clone(text), more[:60]...))
	text = append(text, write("MULTI", "HDEL unacked t1", "EXEC", "RPOP q", "MULTI", "RPOP q 1", "HSET unacked t2 "+message("d"), "EXEC")...)
	put(1, text)
	put(2, write("HSET unacked t3 "+message("c"), "RPUSH q "+message("d")))
	if err := a.failed(); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"a": "LPUSH BRPOP", "b": "LPUSH RPOP HSET HDEL", "c": "LPUSH BRPOP HSET", "d": "LPUSH RPOP HSET RPUSH"} {
		if got := a.told(id); got != id+": "+want || a.poppedAlone(id) != (id == "a") {
			t.Errorf("%s, popped alone: %v; expected %s", got, a.poppedAlone(id), want)
		}
	}
	if put(3, write("RPOP q", "RPOP q")); a.failed() == nil {
		t.Error("a message that nobody has put there can be popped")
	}
}
