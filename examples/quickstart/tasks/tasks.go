// Package tasks is what producer and worker share: the tasks' names and types.
package tasks

import "github.com/gelery/gelery/task"

// AddArgs are the parameters of tasks.add, as in Python's def add(x, y).
type AddArgs struct {
	X int `task:"x"`
	Y int `task:"y"`
}

// Add is the task. Python calls it as app.send_task("tasks.add", (2, 3)).
var Add = task.Define[AddArgs, int]("tasks.add")
