package task_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	_ "github.com/gelery/gelery/backends/memory"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/memory"
)

type ChargeArgs struct {
	Order  int    `task:"order_id"`
	Amount string `task:"amount"`
	Dry    bool   `task:"dry_run,kwonly,default=False"`
}

var Charge = task.Define[ChargeArgs, string]("shop.tasks.charge", task.MaxRetries(5))

// A Python caller gives arguments by position or keyword, and reads Python's own words when they are wrong.
func ExampleDefine() {
	charge := Charge.Definition(func(_ context.Context, a ChargeArgs) (string, error) {
		return fmt.Sprintf("order %d: %s", a.Order, a.Amount), nil
	})
	ctx := context.Background()
	fmt.Println(charge.Handler(ctx, &protocol.Request{
		Args: []any{int64(7)}, Kwargs: map[string]any{"amount": "9.99"},
	}))
	_, err := charge.Handler(ctx, &protocol.Request{Args: []any{int64(7)}})
	fmt.Println(err)
	_, err = charge.Handler(ctx, &protocol.Request{Args: []any{"seven", "9.99"}})
	fmt.Println(err)
	// Output:
	// order 7: 9.99 <nil>
	// charge() missing 1 required positional argument: 'amount'
	// charge() argument order_id: expected int, got str "seven"
}

func ExampleFunc() {
	add := task.Func("tasks.add", func(x, y int) (int, error) { return x + y, nil }, task.Params("x", "y"))
	fmt.Println(add.Handler(context.Background(), &protocol.Request{
		Args: []any{int64(2)}, Kwargs: map[string]any{"y": int64(3)},
	}))
	// Output: 5 <nil>
}

// Sending returns at once; the result comes when a worker has done the work.
func ExampleTask_Send() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := task.Dial(ctx, task.Config{
		Broker:  "memory://example", // redis://localhost:6379/0
		Backend: "memory://example",
		Routes:  []task.Route{{Task: "shop.*", Options: []task.Option{task.Queue("shop")}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close(ctx)
	res, err := Charge.Send(ctx, client, ChargeArgs{Order: 7, Amount: "9.99"}, task.Expires(time.Hour))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(res.State(ctx))

	// No worker runs in this example: this is what one stores.
	err = client.Backend().Store(ctx, []*protocol.ResultMeta{{
		TaskID: res.ID(), Status: protocol.Success, Result: "paid",
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(res.Get(ctx))
	// Output:
	// PENDING <nil>
	// paid <nil>
}

// Errors of Python tasks are asked for by their Python class.
func ExamplePyError() {
	var err error = &task.Error{Type: "FileNotFoundError", Module: "builtins", Message: "a.txt"}
	fmt.Println(err)
	fmt.Println(errors.Is(err, task.PyError("OSError")), errors.Is(err, task.PyError("ValueError")))
	// Output:
	// FileNotFoundError: a.txt
	// true false
}

// A Go error reaches Python as the exception it knows.
func ExampleAsPython() {
	err := task.AsPython(errors.New("card declined"), "shop.errors", "CardDeclined", 7, "insufficient funds")
	fmt.Println(task.ExceptionOf(fmt.Errorf("charge: %w", err)))
	// Output: CardDeclined: (7, 'insufficient funds')
}
