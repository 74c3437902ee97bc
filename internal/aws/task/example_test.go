package task_test

import (
	"context"
	"fmt"

	"github.com/webordinary/claude-code-container/internal/aws/task"
)

func Example() {
	var environ []string // the worker's
	id, err := task.ID(context.Background(), environ)
	fmt.Printf("%q %v\n", id, err) // outside of ECS

	protection, err := task.NewProtection(environ, task.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		protection.Run(ctx)
	}()
	protection.Busy(true)  // a job begins
	protection.Busy(false) // and ends
	stop()
	<-done
	// Output: "" <nil>
}
