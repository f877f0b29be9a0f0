package value

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestSecretNames(t *testing.T) {
	t.Parallel()
	s := NewSecrets("token", "Api-Key", "")
	for name, want := range map[string]bool{"token": true, "TOKEN": true, "auth_token": true, "accessToken": true, "api_key": true, "apiKey": true,
		"X-Api-Key": true, "stripe_api_key_": true, "tokens": false, "oken": false, "": false, "key": false, "apikeys": false, "-": false} {
		if got := s.Hides(name); got != want {
			t.Errorf("%q is hidden: %v", name, got)
		}
	}
	none := Secrets{}
	if none.Hides("token") || !none.None() || s.None() {
		t.Error("the zero value hides something")
	}
}

type card struct {
	Number string `task:"number,secret"`
	Next   *card
}

func TestSecretsOfParams(t *testing.T) {
	t.Parallel()
	fields, err := Fields(reflect.TypeFor[struct {
		User  int
		Card  card
		PIN   string   `task:"pin,secret"`
		Words []string `task:",varargs,secret"`
	}]())
	if err != nil {
		t.Fatal(err)
	}
	own := ParamSecrets(fields, []string{"user", "card", "pin"}, reflect.TypeFor[[]map[string]struct {
		Key string `task:"key,secret"`
	}]())
	s := NewSecrets("password").Of(&own)
	number := map[string]any{"number": "4711", "next": nil}
	for want, got := range map[string]string{
		"(7, {'next': None, 'number': '********'}, '********', '********')": s.ReprTuple([]any{7, number, "1234", "word"}, 1000),
		"(7, {'next': None, 'number': '********'})":                         s.ReprTuple([]any{7, card{Number: "4711"}}, 1000),
		"{'key': '********', 'my_password': '********', 'pin': '********', 'shipping': 1}": s.Repr(map[string]any{"key": 1, "my_password": nil, "pin": "1234",
			"shipping": 1}, 1000),
	} {
		if got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
	args, kwargs := []any{int64(7), number, "1234"}, map[string]any{"deep": []any{map[string]any{"password": "x"}}, "n": int64(1)}
	hiddenArgs, hiddenKwargs := s.Redact(args, kwargs)
	if got, want := fmt.Sprint(hiddenArgs, hiddenKwargs), "[7 map[next:<nil> number:********] ********] map[deep:[map[password:********]] n:1]"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if number["number"] != "4711" || args[2] != "1234" {
		t.Error("the arguments themselves have changed")
	}
	plain := []any{int64(7), "x"}
	if same, _ := s.Redact(plain, nil); &same[0] != &plain[0] {
		t.Error("arguments without secrets are copied")
	}
}

// What a sender has written is left alone unless it shows a secret.
func TestSecretsShown(t *testing.T) {
	t.Parallel()
	s := NewSecrets("password").Of(&Secrets{names: []string{"pin"}, params: []string{"user", "pin"}})
	args, kwargs := []any{int64(7), "1234"}, map[string]any{"password": "hush", "x": []any{map[string]any{"password": "hush2"}}}
	for _, tt := range []struct {
		args, kwargs string
		want         bool
	}{
		{"(7, '1234')", "{}", true},
		{"(7, '<hidden>')", "{...}", false},
		{"(...)", "{'password': 'hush', ...}", true},
		{"(...)", "{'x': [{'password': 'hush2'}]}", true},
		{"", "", false},
	} {
		if got := s.ShownIn(tt.args, tt.kwargs, args, kwargs); got != tt.want {
			t.Errorf("%s %s: %v", tt.args, tt.kwargs, got)
		}
	}
	if s.ShownIn("(7,)", "{'x': 1}", args[:1], map[string]any{"x": int64(1)}) {
		t.Error("a call without secrets shows one")
	}
}

// What Celery's saferepr, Python's repr and anybody else writes of a secret is found: they differ in what they escape, in the
// order of a dict's members, and in where they cut.
func TestSecretsShownByOthers(t *testing.T) {
	t.Parallel()
	s := NewSecrets(DefaultSecretNames...)
	for _, tt := range []struct {
		text string
		name string
		v    any
		want bool
	}{
		{`{'password': 'it\'s a secret'}`, "password", "it's a secret", true},
		{`{'password': "it's a secret"}`, "password", "it's a secret", true},
		{`{'password': 'C:\key'}`, "password", `C:\key`, true},
		{`{'password': 'C:\\key'}`, "password", `C:\key`, true},
		{"{'private_key': '-----BEGIN KEY-----\nMIIE\n'}", "private_key", "-----BEGIN KEY-----\nMIIE\n", true},
		{`{'credentials': {'user': 'bob', 'pw': 'hunter2'}}`, "credentials", map[string]any{"user": "bob", "pw": "hunter2"}, true},
		{`{'tokens': {'f00ba4': True}}`, "tokens", map[string]any{"f00ba4": true}, false}, // no secret name
		{`{'token': {'f00ba4': True}}`, "token", map[string]any{"f00ba4": true}, true},
		{`{'token': ['f00ba4']}`, "token", []any{"f00ba4"}, true},
		{`{'token': 'SSSSSSSSSS...', ...}`, "token", strings.Repeat("S", 100), true},
		{`{'password': '\u00fc'}`, "password", "ü", true},
		{`{'password': 1234}`, "password", int64(1234), true},
		{`<hidden>`, "password", "it's a secret", false},
		{`<hidden>`, "credentials", map[string]any{"user": "bob", "pw": "hunter2"}, false},
		{`<hidden>`, "token", []any{"f00ba4"}, false},
		{`<hidden>`, "password", int64(1234), false},
	} {
		if got := s.ShownIn("()", tt.text, nil, map[string]any{tt.name: tt.v}); got != tt.want {
			t.Errorf("%s: %v", tt.text, got)
		}
	}
}

//nolint:paralleltest // measures what the process allocates
func TestSecretsAllocations(t *testing.T) {
	s := NewSecrets(DefaultSecretNames...).Of(&Secrets{params: []string{"x", "y"}})
	args, kwargs := []any{int64(2), "three"}, map[string]any{"k": []any{1.5}}
	if n := testing.AllocsPerRun(100, func() { s.ShownIn("(2, 'three')", "{'k': [1.5]}", args, kwargs) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { s.ReprTuple(args, 1024) }); n > 2 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSecretsReprTuple(b *testing.B) {
	s := NewSecrets(DefaultSecretNames...).Of(&Secrets{params: []string{"x", "y", "name", "options"}})
	args := []any{int64(2), int64(3), "name", map[string]any{"k": 1.5}}
	b.ReportAllocs()
	for b.Loop() {
		s.ReprTuple(args, 1024)
	}
}
