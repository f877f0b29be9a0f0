package lab

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// GeleryResults match the keys of Gelery's results.
const GeleryResults = "celery-task-meta-*"

// Verify reads all results whose keys match. Task i computed i+1, so the sums must be 1 to tasks, each once.
func Verify(ctx context.Context, c *redis.Client, match string, tasks int,
	sums func(context.Context, *redis.Client, []string) ([]int, error),
) error {
	seen := make([]bool, tasks+1)
	count := 0
	for cursor := uint64(0); ; {
		keys, next, err := c.Scan(ctx, cursor, match, 1000).Result()
		if err != nil {
			return err
		}
		if len(keys) > 0 {
			found, err := sums(ctx, c, keys)
			if err != nil {
				return err
			}
			for _, sum := range found {
				if sum < 1 || sum > tasks {
					return fmt.Errorf("a task computed %d; expected 1 to %d", sum, tasks)
				}
				if !seen[sum] { // SCAN may show a key twice
					seen[sum] = true
					count++
				}
			}
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	if count != tasks {
		return fmt.Errorf("%d different results are stored; expected %d", count, tasks)
	}
	return nil
}

// GelerySums reads Gelery's results.
func GelerySums(ctx context.Context, c *redis.Client, keys []string) ([]int, error) {
	documents, err := c.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, err
	}
	sums := make([]int, len(keys))
	for i, d := range documents {
		var meta struct {
			Status string
			Result int
		}
		text, _ := d.(string)
		if json.Unmarshal([]byte(text), &meta) != nil || meta.Status != "SUCCESS" {
			return nil, fmt.Errorf("%s holds %q", keys[i], text)
		}
		sums[i] = meta.Result
	}
	return sums, nil
}
