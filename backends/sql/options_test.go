package sql

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	engine := func(o map[string]any) map[string]any { return map[string]any{"engine_options": o} }
	plain := options{create: true, idle: 8, open: 8, lifetime: time.Hour}
	for _, tt := range []struct {
		name  string
		given map[string]any
		want  func(o *options)
	}{
		{"none", nil, func(*options) {}},
		{"tables", map[string]any{"table_names": map[string]any{"task": "a"}, "table_schemas": map[string]any{"group": "b"}, "create_tables_at_setup": false},
			func(o *options) {
				o.names, o.schemas, o.create = map[string]string{"task": "a"}, map[string]string{"group": "b"}, false
			}},
		{"without effect", engine(map[string]any{"echo": true, "pool_pre_ping": true}), func(*options) {}},
		{"size", engine(map[string]any{"pool_size": int64(2)}), func(o *options) { o.idle, o.open = 2, 12 }},
		{"overflow", engine(map[string]any{"max_overflow": int64(0)}), func(o *options) { o.idle, o.open = 5, 5 }},
		{"no limit", engine(map[string]any{"max_overflow": int64(-1)}), func(o *options) { o.open = 0 }},
		{"no size", engine(map[string]any{"pool_size": int64(0)}), func(o *options) { o.open = 0 }},
		{"recycle", engine(map[string]any{"pool_recycle": int64(60)}), func(o *options) { o.lifetime = time.Minute }},
		{"no recycling", engine(map[string]any{"pool_recycle": int64(-1)}), func(o *options) { o.lifetime = 0 }},
	} {
		got, err := parseOptions(tt.given)
		want := plain
		tt.want(&want)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(options{})); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", tt.name, err, diff)
		}
	}
	for want, given := range map[string]map[string]any{
		`"visibility_timeout" is unknown`:     {"visibility_timeout": 1},
		`"table_names": string is not`:        {"table_names": "jobs"},
		`"table_names": "tasks": jobs`:        {"table_names": map[string]any{"tasks": "jobs"}},
		`"create_tables_at_setup": int`:       {"create_tables_at_setup": 1},
		`"engine_options": int is not a map`:  {"engine_options": 1},
		`"engine_options": "pool_size": many`: engine(map[string]any{"pool_size": "many"}),
	} {
		if _, err := parseOptions(given); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", given, err, want)
		}
	}
}
