package redisconn

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reach is what a test can compare of a Config.
type reach struct {
	Network        string
	Addrs          []string
	User, Password string
	DB             int
	TLS, Verified  bool
	Master         string
}

func TestParse(t *testing.T) {
	t.Parallel()
	type opts = map[string]any
	tcp := func(addrs ...string) reach { return reach{Network: "tcp", Addrs: addrs} }
	with := func(r reach, f func(*reach)) reach { f(&r); return r }
	tests := []struct {
		url  string
		opts opts
		want reach
	}{
		{"redis://", nil, tcp("127.0.0.1:6379")},
		{"redis://h", nil, tcp("h:6379")},
		{"redis://h//", nil, tcp("h:6379")},
		{"redis://h:6380/2", nil, with(tcp("h:6380"), func(r *reach) { r.DB = 2 })},
		{"redis://[::1]/2", nil, with(tcp("[::1]:6379"), func(r *reach) { r.DB = 2 })},
		{"redis://:pw@h/1", nil, with(tcp("h:6379"), func(r *reach) { r.Password, r.DB = "pw", 1 })},
		{"redis://user:p%40w@h/1", nil, with(tcp("h:6379"), func(r *reach) { r.User, r.Password, r.DB = "user", "p@w", 1 })},
		{"redis://h", opts{"username": "u", "password": "p"}, with(tcp("h:6379"), func(r *reach) { r.User, r.Password = "u", "p" })},
		{"rediss://h/0", nil, with(tcp("h:6379"), func(r *reach) { r.TLS, r.Verified = true, true })},
		{"rediss://h/0?ssl_cert_reqs=required", nil, with(tcp("h:6379"), func(r *reach) { r.TLS, r.Verified = true, true })},
		{"rediss://h/0?ssl_cert_reqs=CERT_OPTIONAL", nil, with(tcp("h:6379"), func(r *reach) { r.TLS, r.Verified = true, true })},
		{"rediss://h/0?ssl_cert_reqs=CERT_NONE", nil, with(tcp("h:6379"), func(r *reach) { r.TLS = true })},
		{"redis://h/0", opts{"ssl": opts{"ssl_cert_reqs": "none"}}, with(tcp("h:6379"), func(r *reach) { r.TLS = true })},
		{"redis://h/0", opts{"ssl": true}, with(tcp("h:6379"), func(r *reach) { r.TLS, r.Verified = true, true })},
		{"rediss://h/0?ssl_cert_reqs=none", opts{"ssl": true}, with(tcp("h:6379"), func(r *reach) { r.TLS = true })},
		{"redis+socket:///run/r.sock?virtual_host=3", nil, reach{Network: "unix", Addrs: []string{"/run/r.sock"}, DB: 3}},
		{"redis+socket://:pw@/run/r.sock", nil, reach{Network: "unix", Addrs: []string{"/run/r.sock"}, Password: "pw"}},
		{"redis://a/0;redis://b:1/0", nil, tcp("a:6379", "b:1")},
		{"sentinel://:pw@s1/1;sentinel://s2:7/0", opts{"master_name": "m", "min_other_sentinels": 1},
			with(tcp("s1:26379", "s2:7"), func(r *reach) { r.Password, r.DB, r.Master = "pw", 1, "m" })},
		{"redis://h", opts{"max_connections": nil, "retry_on_timeout": true, "health_check_interval": 25, "mine": 7}, tcp("h:6379")},
	}
	for _, tt := range tests {
		t.Run(tt.url, func(t *testing.T) {
			t.Parallel()
			c, err := Parse(tt.url, tt.opts, "mine")
			if err != nil {
				t.Fatal(err)
			}
			got := reach{c.network, c.addrs, c.user, c.password, c.DB(), c.tls != nil,
				c.tls != nil && !c.tls.InsecureSkipVerify, c.master}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseOptions(t *testing.T) {
	t.Parallel()
	c, err := Parse("redis://h", map[string]any{
		"socket_timeout": 2.5, "socket_connect_timeout": 3, "socket_keepalive": false,
		"max_connections": float64(7), "client_name": "me",
		"sentinel_kwargs": map[string]any{"username": "su", "password": "sp"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.socketTimeout != 2500*time.Millisecond || c.connectTimeout != 3*time.Second || c.keepAlive ||
		c.maxConnections != 7 || c.clientName != "me" || c.sentinelUser != "su" || c.sentinelPassword != "sp" {
		t.Errorf("got %+v", c)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	type opts = map[string]any
	tests := []struct {
		url  string
		opts opts
		want string
	}{
		{"redis://:SECRET@h/abc", nil, `redis://:***@h/abc: database "abc" is not a number`},
		{"redis://h/-1", nil, "database"},
		{"redis+socket:///s?virtual_host=x", nil, "database"},
		{"redis+socket:///s?db=3", nil, `"db" is unknown; known: virtual_host`},
		{"redis+socket://", nil, "no path"},
		{"redis+socket:///a;redis+socket:///b", nil, "failover"},
		{"redis://:SECRET@h/0?socket_timeout=5", nil, `"socket_timeout" is unknown; known: ssl_ca_certs, ssl_cert_reqs`},
		{"rediss://h/0?ssl_cert_reqs=perhaps", nil, `"perhaps" is unknown; known: required, optional, none`},
		{"rediss://h/0?ssl_ca_certs=/nowhere", nil, "ssl_ca_certs"},
		{"rediss://h/0?ssl_certfile=/nowhere", nil, "ssl_certfile"},
		{"redis://a;rediss://b", nil, "one scheme"},
		{"redis://a/0;redis://b/1", nil, "share database"},
		{"redis://:SECRET@a;redis://:SECRET2@b", nil, "share database"},
		{"amqp://:SECRET@h", nil, `"amqp" is not Redis`},
		{"sentinel://:SECRET@h", nil, "master_name"},
		{"redis://h", opts{"visibility_timout": 1}, "known: client_name, health_check_interval, master_name"},
		{"redis://h", opts{"visibility_timout": 1}, "ssl, username, visibility_timeout"},
		{"redis://h", opts{"socket_timeout": "5"}, "socket_timeout"},
		{"redis://h", opts{"socket_timeout": -5}, "socket_timeout"},
		{"redis://h", opts{"max_connections": 1.5}, "max_connections"},
		{"redis://h", opts{"master_name": 1}, "master_name"},
		{"redis://h", opts{"sentinel_kwargs": opts{"db": 1}}, "db"},
		{"redis://h", opts{"ssl": opts{"ca": 1}}, "ca"},
	}
	for _, tt := range tests {
		t.Run(tt.url+" "+tt.want, func(t *testing.T) {
			t.Parallel()
			_, err := Parse(tt.url, tt.opts, "visibility_timeout")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "SECRET") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}
