package redisconn

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/internal/version"
)

// examined returns the findings about a server by subject.
func examined(t *testing.T, url string, o ExamineOptions) map[string]Finding {
	t.Helper()
	c, err := Parse(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := c.Client(ClientOptions{})
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	found, err := c.Examine(ctx, client, o)
	if err != nil {
		t.Fatal(err)
	}
	bySubject := map[string]Finding{}
	for _, f := range found {
		bySubject[f.Subject] = f
	}
	if len(bySubject) != len(found) {
		t.Errorf("a subject twice in %+v", found)
	}
	return bySubject
}

func want(t *testing.T, found map[string]Finding, subject, health, detail string) {
	t.Helper()
	if f := found[subject]; f.Health != health || !strings.Contains(f.Detail, detail) {
		t.Errorf("%+v\nwant %s, %s, %q", f, subject, health, detail)
	}
}

func TestExamine(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args                    []string
		holds                   string
		subject, health, detail string
	}{
		{nil, "messages", "connection", ok, "answers in"},
		{nil, "messages", "persistence", wrong, "none: all messages are lost"},
		{nil, "results", "persistence", warning, "none: all results are lost"},
		{[]string{"--save", "3600 1"}, "messages", "persistence", warning, "snapshots only (save 3600 1)"},
		{[]string{"--appendonly", "yes"}, "messages", "persistence", ok, "every second"},
		{[]string{"--appendonly", "yes", "--appendfsync", "no"}, "messages", "persistence", warning, "appendfsync no"},
		{[]string{"--appendonly", "yes", "--appendfsync", "always"}, "messages", "persistence", ok, "appendfsync always"},
		{[]string{"--appendonly", "yes", "--rename-command", "CONFIG", ""}, "messages", "persistence", ok, "append-only file"},
		{[]string{"--rename-command", "CONFIG", ""}, "messages", "persistence", warning, "no append-only file"},
		{nil, "messages", "memory", ok, "no limit"},
		{[]string{"--maxmemory", "1gb"}, "messages", "memory", ok, "of 1024 MiB used (0 %)"},
		{[]string{"--maxmemory-policy", "allkeys-lru"}, "messages", "memory", wrong, "allkeys-lru throws keys away"},
		{[]string{"--maxmemory-policy", "volatile-ttl"}, "results", "memory", warning, "volatile-ttl throws keys away"},
		{[]string{"--maxmemory", "100kb"}, "messages", "memory", wrong, "Redis refuses messages"},
		{nil, "messages", "replication", ok, "master without replicas"},
		{[]string{"--replicaof", "127.0.0.1 1"}, "messages", "replication", wrong, "replica of 127.0.0.1:1"},
		{nil, "messages", "permissions", ok, "user default may do all"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(append(slices.Clone(tt.args), tt.holds, tt.subject), " "), func(t *testing.T) {
			t.Parallel()
			found := examined(t, testservice.StartRedis(t, tt.args...).URL, ExamineOptions{Holds: tt.holds, Commands: [][]any{{"PING"}, {"RPOP", "list"}}})
			want(t, found, tt.subject, tt.health, tt.detail)
		})
	}
}

// TestExamineUser: what a user may not do is found out without doing it, what it may not ask is unknown.
func TestExamineUser(t *testing.T) {
	t.Parallel()
	s := testservice.StartRedis(t)
	admin := open(t, s.URL, nil, ClientOptions{})
	for name, tt := range map[string]struct{ rules, subject, health, detail string }{
		"all":     {"~* &* +@all", "permissions", ok, "user all may do all"},
		"command": {"~* &* +@all -rpop", "permissions", wrong, "user command may not RPOP list ("},
		"key":     {"~lis &* +@all", "permissions", wrong, "user key may not RPOP list ("},
		"acl":     {"~* &* +@all -acl", "permissions", unknown, "ACL WHOAMI: NOPERM"},
		"dryrun":  {"~* &* +@all -acl|dryrun", "permissions", unknown, "ACL DRYRUN: NOPERM"},
		"info":    {"~* &* +@all -info", "memory", unknown, "INFO: NOPERM"},
	} {
		set := []any{"ACL", "SETUSER", name, "on", ">secret"}
		for _, r := range strings.Fields(tt.rules) {
			set = append(set, r)
		}
		if err := admin.Do(deadline(t), set...).Err(); err != nil {
			t.Fatal(err)
		}
		found := examined(t, strings.Replace(s.URL, "redis://", "redis://"+name+":secret@", 1),
			ExamineOptions{Holds: "messages", Commands: [][]any{{"PING"}, {"RPOP", "list"}}})
		want(t, found, tt.subject, tt.health, tt.detail)
	}
	if n := admin.LLen(deadline(t), "list").Val(); n != 0 {
		t.Errorf("the list has %d elements", n)
	}
}

// TestExamineFake: a server that tells next to nothing is no error.
func TestExamineFake(t *testing.T) {
	t.Parallel()
	found := examined(t, testservice.Miniredis(t), ExamineOptions{Holds: "messages", Commands: [][]any{{"PING"}}})
	want(t, found, "connection", ok, "answers in")
	for _, subject := range []string{"version", "persistence", "memory", "replication", "permissions"} {
		want(t, found, subject, unknown, "")
	}
}

func TestExamineNobody(t *testing.T) {
	t.Parallel()
	c, err := Parse("redis://127.0.0.1:1/0", nil)
	if err != nil {
		t.Fatal(err)
	}
	client := c.Client(ClientOptions{})
	defer client.Close()
	if found, err := c.Examine(t.Context(), client, ExamineOptions{}); err == nil || found != nil {
		t.Errorf("%v, %v; want an error alone", found, err)
	}
}

func TestLuaHole(t *testing.T) {
	t.Parallel()
	for text, hole := range map[string]bool{"6.2.19": true, "6.2.20": false, "7.0.15": true, "7.2.10": true, "7.2.11": false, "7.4.5": true,
		"7.4.6": false, "8.0.3": true, "8.0.4": false, "8.2.1": true, "8.2.2": false, "8.4.0": false} {
		v, known := version.Parse(text)
		if !known || hasLuaHole(v) != hole {
			t.Errorf("%s: %v, %v; want %v", text, known, !hole, hole)
		}
	}
}
