package settings

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDatabaseSettings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]map[string]any{
		"result_backend: db+sqlite:///r.db\ndatabase_table_names: {task: jobs}\ndatabase_engine_options: {pool_size: 3, echo: true}\n" +
			"result_backend_transport_options: {create_tables_at_setup: false}": {
			"table_names": map[string]any{"task": "jobs"}, "engine_options": map[string]any{"pool_size": int64(3), "echo": true},
			"create_tables_at_setup": false,
		},
		"result_backend: redis://\ndatabase_table_names: {task: jobs}":                 nil,
		"result_backend: django-db+sqlite:///r.db\ndatabase_table_names: {task: jobs}": nil,
	} {
		s := &Settings{}
		if err := s.ReadFile(file(t, text)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, s.Client().BackendOptions); diff != "" {
			t.Errorf("%s:\n%s", text, diff)
		}
	}
}

func TestDatabaseSettingsRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"database_table_names: {tasks: jobs}":            "tasks: jobs: it takes texts for task and group",
		"database_table_schemas: {task: 1}":              "task: 1: it takes texts for task and group",
		"database_engine_options: {pool_sise: 1}":        "pool_sise: there is no such option; those there are: echo, ",
		"database_engine_options: {pool_size: -1}":       "pool_size: -1: it takes a whole number, pool_size from 0 to 10000",
		"database_engine_options: {pool_recycle: often}": "pool_recycle: often: it takes a whole number",
		"database_url: sqlite://":                        "write it into result_backend: db+postgresql://",
	} {
		err := (&Settings{}).ReadFile(file(t, text))
		name, _, _ := strings.Cut(text, ":")
		if err == nil || !strings.Contains(err.Error(), ":1: "+name) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
