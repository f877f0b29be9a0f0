package main

import (
	"testing"
	"time"

	"github.com/gelery/gelery/internal/databaseserver"
)

// TestMeasure runs all of it once for each store, small, without a bound.
func TestMeasure(t *testing.T) {
	for store := range places {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			if store == "django-postgresql" && databaseserver.FindPostgreSQL() == "" {
				t.Skip("PostgreSQL is not installed")
			}
			if _, err := measure(t.Context(), config{entries: 200, rate: 50, span: 500 * time.Millisecond, store: store}); err != nil {
				t.Fatal(err)
			}
		})
	}
}
