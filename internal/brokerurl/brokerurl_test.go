package brokerurl

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want []URL
	}{
		{"redis://", []URL{{Scheme: "redis"}}},
		{"REDIS://H", []URL{{Scheme: "redis", Host: "h"}}},
		{"redis://h/", []URL{{Scheme: "redis", Host: "h"}}},
		{"redis://h//", []URL{{Scheme: "redis", Host: "h", Path: "/"}}},
		{"redis://h:6380/2", []URL{{Scheme: "redis", Host: "h", Port: 6380, Path: "2"}}},
		{"redis://:pw@h/1", []URL{{Scheme: "redis", Password: "pw", Host: "h", Path: "1"}}},
		{"redis://user:p%40w@h/1", []URL{{Scheme: "redis", User: "user", Password: "p@w", Host: "h", Path: "1"}}},
		{"redis://u:100%@h", []URL{{Scheme: "redis", User: "u", Password: "100%", Host: "h"}}},
		{"redis://u:a+b%2Fc@h", []URL{{Scheme: "redis", User: "u", Password: "a+b/c", Host: "h"}}},
		{"redis://[::1]:6379/1", []URL{{Scheme: "redis", Host: "::1", Port: 6379, Path: "1"}}},
		{"redis://[::1]", []URL{{Scheme: "redis", Host: "::1"}}},
		{"rediss://h/0?ssl_cert_reqs=none", []URL{{Scheme: "rediss", Host: "h", Path: "0",
			Query: url.Values{"ssl_cert_reqs": {"none"}}}}},
		{"redis+socket:///run/r.sock?virtual_host=3", []URL{{Scheme: "redis+socket", Path: "run/r.sock",
			Query: url.Values{"virtual_host": {"3"}}}}},
		{"redis+socket://:pw@/run/r.sock", []URL{{Scheme: "redis+socket", Password: "pw", Path: "run/r.sock"}}},
		{"amqp://guest:guest@localhost:5672//", []URL{{Scheme: "amqp", User: "guest", Password: "guest",
			Host: "localhost", Port: 5672, Path: "/"}}},
		{"amqps://h/%2f", []URL{{Scheme: "amqps", Host: "h", Path: "/"}}},
		{"pyamqp://h/v@x", []URL{{Scheme: "pyamqp", Host: "h", Path: "v@x"}}},
		// unencoded passwords
		{"redis://:p#w@h/1", []URL{{Scheme: "redis", Password: "p#w", Host: "h", Path: "1"}}},
		{"redis://:p?w@h/1", []URL{{Scheme: "redis", Password: "p?w", Host: "h", Path: "1"}}},
		{"redis://:p/w@h/1", []URL{{Scheme: "redis", Password: "p/w", Host: "h", Path: "1"}}},
		{"redis://:p@w@h/1", []URL{{Scheme: "redis", Password: "p@w", Host: "h", Path: "1"}}},
		{"redis://u:12/34@h/1", []URL{{Scheme: "redis", User: "u", Password: "12/34", Host: "h", Path: "1"}}},
		{"redis://:p:w@h/1", []URL{{Scheme: "redis", Password: "p:w", Host: "h", Path: "1"}}},
		{"redis://:p;w@h/1", []URL{{Scheme: "redis", Password: "p;w", Host: "h", Path: "1"}}},
		{"redis://:p;q;w@h/1;redis://b", []URL{{Scheme: "redis", Password: "p;q;w", Host: "h", Path: "1"},
			{Scheme: "redis", Host: "b"}}},
		{"amqp://u:a#b?c@h/v", []URL{{Scheme: "amqp", User: "u", Password: "a#b?c", Host: "h", Path: "v"}}},
		{"amqp://u:p@ss#1@h/v", []URL{{Scheme: "amqp", User: "u", Password: "p@ss#1", Host: "h", Path: "v"}}},
		{"amqp://u:p@ss?1@h/v", []URL{{Scheme: "amqp", User: "u", Password: "p@ss?1", Host: "h", Path: "v"}}},
		{"redis://u:p@s/s@h/1", []URL{{Scheme: "redis", User: "u", Password: "p@s/s", Host: "h", Path: "1"}}},
		{"rediss://h/0?ssl_ca_certs=/a@b", []URL{{Scheme: "rediss", Host: "h", Path: "0",
			Query: url.Values{"ssl_ca_certs": {"/a@b"}}}}},
		// lists
		{"redis://a/0;redis://b/0", []URL{{Scheme: "redis", Host: "a", Path: "0"}, {Scheme: "redis", Host: "b", Path: "0"}}},
		{"redis://:x@a/2 ; b:7 ;", []URL{{Scheme: "redis", Password: "x", Host: "a", Path: "2"},
			{Scheme: "redis", Password: "x", Host: "b", Port: 7, Path: "2"}}},
		{"sentinel://:pw@s1:26379/1;sentinel://:pw@s2:26379/1", []URL{
			{Scheme: "sentinel", Password: "pw", Host: "s1", Port: 26379, Path: "1"},
			{Scheme: "sentinel", Password: "pw", Host: "s2", Port: 26379, Path: "1"}}},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			t.Parallel()
			got, err := Parse(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(URL{}, "Raw")); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{"", "empty"},
		{" ; ", "empty"},
		{"localhost", "no scheme"},
		{"redis://:SECRET", "port"},
		{"redis://h:SECRET/0", "port"},
		{"redis://h:99999", "port"},
		{"redis://u:SECRET@h:x/0", "port"},
		{"redis://u:SECRET@[::1/0", "unclosed"},
		{"redis://u:SECRET@[::1]7/0", "after"},
		{"redis://u:SECRET@a b/0", "host"},
		{"redis://u:SECRET@h/0?a=%zz", "query"},
		{"redis://u:SEC;RET@h:x", "port"},
		{"redis://a;b:SECRET", "port"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			t.Parallel()
			_, err := Parse(tt.in)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			for _, s := range []string{"SECRET", "SEC", "RET"} {
				if strings.Contains(err.Error(), s) {
					t.Errorf("the error shows the password: %v", err)
				}
			}
		})
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{"redis://h:1/0", "redis://h:1/0"},
		{"redis://u@h/0", "redis://u@h/0"},
		{"redis://u:pw@h/0", "redis://u:***@h/0"},
		{"redis://:pw@h:1/0;sentinel://:x@b", "redis://:***@h:1/0;sentinel://:***@b"},
		{"redis://:p w@h", "redis://:***@h"},
		{"redis://:p;w@h", "redis://:***@h"},
		{"redis://h/0?password=x&a=b", "redis://h/0?password=***&a=b"},
		{"redis://:lost", "redis://:***"},
		{"redis://a;b:lost", "redis://a;b:***"},
		{"redis://u/a:pw@h", "redis://u/***@h"},
		{"dial redis://u:pw@h/0: refused, then amqp://a:b@c//", "dial redis://u:***@h/0: refused, then amqp://a:***@c//"},
		{"redis://u:p@s/s@h/0", "redis://u:***@h/0"},
		{"nothing here", "nothing here"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			t.Parallel()
			if got := Redact(tt.in); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestRedacted(t *testing.T) {
	t.Parallel()
	urls, err := Parse("redis://me:a%2Fb@[::1]:7/3?token=x")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := urls[0].Redacted(), "redis://me:***@[::1]:7/3?token=***"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"redis://u:p@h:1/0?a=b#c", "redis://a;b:7;redis://c", "amqp://h//", "redis://:a;b/?@h", "://"} {
		f.Add(s, "pa/ss@w#or?d")
	}
	f.Fuzz(func(t *testing.T, s, password string) {
		_, _ = Parse(s)
		_ = Redact(s)
		secret := "S3CR3T" + password
		full := "redis://u:" + url.QueryEscape(secret) + "@h:1/0"
		urls, err := Parse(full)
		if err != nil {
			t.Fatalf("%q: %v", full, err)
		}
		// QueryEscape writes a space as "+", which is literal in a URL's user part.
		if want := strings.ReplaceAll(secret, " ", "+"); urls[0].Password != want {
			t.Fatalf("password %q, want %q", urls[0].Password, want)
		}
		if r := Redact("redis://u:" + secret + "@h:1/0"); strings.Contains(r, "S3CR3T") {
			t.Fatalf("Redact shows the password: %s", r)
		}
	})
}
