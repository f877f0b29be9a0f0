package rabbitmq

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// finding is what a test wants of one finding: its health and a part of its detail and advice.
type finding struct {
	health transport.Health
	part   string
}

func wantFindings(t *testing.T, tr *rabbitTransport, queues []string, want map[string]finding) {
	t.Helper()
	found, err := tr.Examine(limited(t), queues)
	if err != nil {
		t.Fatal(err)
	}
	for subject, w := range want {
		i := slices.IndexFunc(found, func(f transport.Finding) bool { return f.Subject == subject })
		if i < 0 {
			if w.health != "" {
				t.Errorf("nothing about %s in %+v", subject, found)
			}
			continue
		}
		if f := found[i]; f.Health != w.health || !strings.Contains(f.Detail+" try: "+f.Advice, w.part) {
			t.Errorf("%+v\nwant %+v", f, w)
		}
	}
}

func TestExamine(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	tr := operator(t, s.URL, s.ManagementURL)
	arguments := func(kv ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i].(string)] = kv[i+1]
		}
		return m
	}
	mustDeclare(t, tr,
		transport.Queue{Name: "plain"},
		transport.Queue{Name: "busy"},
		transport.Queue{Name: "quorum", Arguments: arguments("x-queue-type", "quorum")},
		transport.Queue{Name: "brief", Transient: true},
		transport.Queue{Name: "short", Arguments: arguments("x-max-length", 10)},
		transport.Queue{Name: "strict", Arguments: arguments("x-max-length", 10, "x-overflow", "reject-publish")},
		transport.Queue{Name: "hasty", Arguments: arguments("x-message-ttl", 60000)},
		transport.Queue{Name: quarantineName("plain"), Unbound: true})
	mustSend(t, tr, "busy", "1", 0)
	mustSend(t, tr, quarantineName("plain"), "1", 0)
	all := map[string]finding{
		"connection":          {transport.Healthy, s.Addr},
		"version":             {transport.Doubtful, "RabbitMQ 3.10.8"},
		"management":          {transport.Healthy, "answers"},
		"alarms":              {transport.Healthy, "none"},
		"cluster":             {transport.Healthy, "1 node running"},
		"publishing":          {transport.Healthy, "confirmed"},
		"delayed delivery":    {},
		"queue plain":         {transport.Healthy, "classic; 0 waiting, 0 consumers"},
		"queue busy":          {transport.Doubtful, "1 waiting, 0 consumers; nobody consumes"},
		"queue quorum":        {transport.Healthy, "quorum; 1 of 1 members online"},
		"queue brief":         {transport.Doubtful, "not durable"},
		"queue short":         {transport.Doubtful, "drops its oldest messages"},
		"queue strict":        {transport.Healthy, "classic"},
		"queue hasty":         {transport.Doubtful, "longer than 60000 ms"},
		"quarantine of plain": {transport.Doubtful, "1 message that no worker could handle"},
		"quarantine of busy":  {},
	}
	if v, _ := tr.serverProperties()["version"].(string); v != "3.10.8" { // whatever is installed
		health, detail, _ := judgeVersion("RabbitMQ", v)
		all["version"] = finding{health, detail}
	}
	// A queue too young for the API to count is examined without its unacked messages.
	found := func(s string) finding { return all[s] }
	all["queue busy"] = finding{transport.Doubtful, "nobody consumes"}
	wantFindings(t, tr, nil, all)

	wantFindings(t, operator(t, s.URL, ""), []string{"plain", "quorum", "brief", "none"}, map[string]finding{
		"connection":          found("connection"),
		"management":          {transport.Unknown, "does not answer at http://127.0.0.1:1 "},
		"alarms":              {},
		"publishing":          found("publishing"),
		"queue plain":         {transport.Healthy, "0 waiting, 0 consumers"},
		"queue quorum":        {transport.Healthy, "not what Celery declares by default: arg 'x-queue-type'"},
		"queue none":          {transport.Doubtful, "it does not exist"},
		"quarantine of plain": found("quarantine of plain"),
		"queue busy":          {},
	})
	wantFindings(t, operator(t, s.URL, ""), nil, map[string]finding{"queues": {transport.Unknown, "cannot be listed"}})
}

// TestExamineDelays finds the topology of delayed delivery, whole or broken.
func TestExamineDelays(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	tr := operator(t, s.URL, s.ManagementURL)
	mustDeclare(t, tr, transport.Queue{Name: "q", Delayed: true})
	wantFindings(t, tr, []string{"q"}, map[string]finding{"delayed delivery": {transport.Healthy, "0 messages waiting"}})
	mustDeclare(t, tr, transport.Queue{Name: "all", Exchange: "events", ExchangeType: "topic", RoutingKey: "#", Delayed: true},
		transport.Queue{Name: "some", Exchange: "events", ExchangeType: "topic", RoutingKey: "mail.#", Delayed: true})
	wantFindings(t, tr, []string{"q"}, map[string]finding{"delayed delivery": {transport.Doubtful, "is copied to exchange events (#) try: bind"}})
	if _, err := tr.DeleteQueue(limited(t), levelName(5), false, false); err != nil {
		t.Fatal(err)
	}
	wantFindings(t, tr, []string{"q"}, map[string]finding{"delayed delivery": {transport.Broken, "1 of its 28 queues are missing"}})
}

func TestExamineRights(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	tr := operator(t, s.URL, "")
	mustDeclare(t, tr, transport.Queue{Name: "theirs"}, transport.Queue{Name: "other"})
	user := restricted(t, s, "^(theirs|_gelery\\.quarantine\\.theirs)$", "management")
	as := func(url string) string { return strings.Replace(url, "guest:guest", user+":secret", 1) }
	wantFindings(t, operator(t, as(s.URL), as(s.ManagementURL)), []string{"theirs", "other"}, map[string]finding{
		"management":   {transport.Healthy, "answers"},
		"alarms":       {transport.Healthy, "none"},
		"cluster":      {transport.Unknown, "give the user the tag monitoring"},
		"publishing":   {transport.Broken, "write to amq.default"},
		"queue theirs": {transport.Healthy, "0 waiting"},
		"queue other": {transport.Broken, "may not consume from it; the user may not declare it, which workers do when they start; " +
			"the user may not declare _gelery.quarantine.other"},
		"delayed delivery": {transport.Doubtful, "the user may not declare its queues"},
	})
	user = restricted(t, s, ".*", "")
	wantFindings(t, operator(t, as(s.URL), as(s.ManagementURL)), []string{"theirs"}, map[string]finding{
		"management":       {transport.Unknown, "give the user the tag monitoring"},
		"publishing":       {transport.Healthy, "confirmed"},
		"queue theirs":     {transport.Healthy, "0 waiting"},
		"delayed delivery": {},
	})
	if looks, err := tr.look(limited(t), []string{quarantineName("theirs"), levelName(delayLevels - 1)}); err != nil ||
		!errors.Is(looks[quarantineName("theirs")].err, errNotFound) || !errors.Is(looks[levelName(delayLevels-1)].err, errNotFound) {
		t.Errorf("the examination has left something behind: %+v, %v", looks, err)
	}
}

func TestExamineAlarm(t *testing.T) {
	t.Parallel()
	s := testservice.StartRabbitMQ(t)
	mustDeclare(t, operator(t, s.URL, ""), transport.Queue{Name: "q"})
	s.SetMemoryAlarm(true)
	stopped := finding{transport.Broken, "broker refuses new messages: low on memory"}
	wantFindings(t, operator(t, s.URL, s.ManagementURL), []string{"q"}, map[string]finding{
		"alarms": {transport.Broken, "memory on " + s.NodeName}, "publishing": stopped, "queue q": {transport.Healthy, "0 waiting"}})
	wantFindings(t, operator(t, s.URL, ""), []string{"q"}, map[string]finding{"publishing": stopped})
}

func TestJudgeVersion(t *testing.T) {
	t.Parallel()
	tests := []struct {
		product, version string
		want             transport.Health
	}{
		{"RabbitMQ", "3.7.28", transport.Doubtful},
		{"RabbitMQ", "3.10.8", transport.Doubtful},
		{"RabbitMQ", "3.11.24", transport.Healthy},
		{"RabbitMQ", "3.12.10", transport.Doubtful},
		{"RabbitMQ", "3.12.11", transport.Healthy},
		{"RabbitMQ", "4.1.0-rc.1", transport.Healthy},
		{"RabbitMQ", "", transport.Unknown},
		{"LavinMQ", "2.0.0", transport.Unknown},
	}
	for _, tt := range tests {
		if got, detail, _ := judgeVersion(tt.product, tt.version); got != tt.want || !strings.Contains(detail, tt.version) {
			t.Errorf("%s %s: %s, %q", tt.product, tt.version, got, detail)
		}
	}
}

// TestJudgeProperties holds what takes a cluster or an accident to see.
func TestJudgeProperties(t *testing.T) {
	t.Parallel()
	three := []string{"a", "b", "c"}
	tests := []struct {
		name  string
		nodes int
		q     queueInfo
		want  finding
	}{
		{"quorum", 3, queueInfo{Type: "quorum", Durable: true, Members: three, Online: three}, finding{transport.Healthy, "3 of 3 members online"}},
		{"one member down", 3, queueInfo{Type: "quorum", Durable: true, Members: three, Online: three[:2]}, finding{transport.Healthy, "2 of 3"}},
		{"no majority", 3, queueInfo{Type: "quorum", Durable: true, Members: three, Online: three[:1]}, finding{transport.Broken, "no majority"}},
		{"half of two", 3, queueInfo{Type: "quorum", Durable: true, Members: three[:2], Online: three[:1]}, finding{transport.Broken, "no majority"}},
		{"one copy", 3, queueInfo{Type: "quorum", Durable: true, Members: three[:1], Online: three[:1]}, finding{transport.Doubtful, "all copies are on one node"}},
		{"classic in a cluster", 3, queueInfo{Durable: true}, finding{transport.Doubtful, "classic; it lives on one node"}},
		{"its node is down", 3, queueInfo{Durable: true, State: "down"}, finding{transport.Broken, "its state is down"}},
		{"policy", 1, queueInfo{Durable: true, Policy: "p", Effective: looseObject{"max-length": 5.0}}, finding{transport.Doubtful, "policy p; when it is full"}},
		{"the argument wins", 1, queueInfo{Durable: true, Arguments: looseObject{"x-overflow": "reject-publish", "x-max-length": 5.0},
			Effective: looseObject{"overflow": "drop-head"}}, finding{transport.Healthy, "classic"}},
		{"expiry into another exchange", 1, queueInfo{Durable: true, Arguments: looseObject{"x-message-ttl": 5.0, "x-dead-letter-exchange": "x"}},
			finding{transport.Healthy, "classic"}},
	}
	for _, tt := range tests {
		x, v := &examination{nodes: make([]nodeInfo, tt.nodes)}, &verdict{health: transport.Healthy}
		x.properties(v, &tt.q)
		if said := strings.Join(v.details, "; "); v.health != tt.want.health || !strings.Contains(said, tt.want.part) {
			t.Errorf("%s: %s, %q; want %+v", tt.name, v.health, said, tt.want)
		}
	}
}

func TestManagementURL(t *testing.T) {
	t.Parallel()
	e := endpoint{host: "mq", port: 5672, user: "u", password: "p", vhost: "v"}
	secure := e
	secure.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: "mq"}
	v6 := e
	v6.host = "::1"
	tests := []struct {
		given              string
		e                  endpoint
		base, user, secret string
	}{
		{"", e, "http://mq:15672", "u", "p"},
		{"", secure, "https://mq:15671", "u", "p"},
		{"", v6, "http://[::1]:15672", "u", "p"},
		{"https://admin:s%40t@ops:443/rabbit/", e, "https://ops:443/rabbit", "admin", "s@t"},
		{"http://ops", e, "http://ops", "u", "p"},
	}
	for _, tt := range tests {
		m, err := newManagement(tt.given, tt.e)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{m.base, m.user, m.password, m.vhost}
		if d := cmp.Diff([]string{tt.base, tt.user, tt.secret, "v"}, got); d != "" {
			t.Errorf("%q: %s", tt.given, d)
		}
	}
	for _, bad := range []string{"ops:15672", "amqp://ops", "http://", "http://u:se%cret@h"} {
		if _, err := newManagement(bad, e); err == nil || strings.Contains(err.Error(), "cret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
