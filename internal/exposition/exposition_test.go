package exposition

import "testing"

func TestText(t *testing.T) {
	t.Parallel()
	var text Text
	text.Family("celery_worker_up", "gauge", "Whether it is there.")
	text.Sample(1)
	text.Sample(1e21, Label{"hostname", "a\"b\\c\nd"}, Label{"queue_name", "\xff"})
	text.Family("celery_task_runtime", "histogram", "How long.")
	text.Histogram([]float64{0.005, 1}, []uint64{2, 1, 3}, 12.5, Label{"name", "add"})
	want := `# HELP celery_worker_up Whether it is there.
# TYPE celery_worker_up gauge
celery_worker_up 1.0
celery_worker_up{hostname="a\"b\\c\nd",queue_name="` + "\uFFFD" + `"} 1e+21
# HELP celery_task_runtime How long.
# TYPE celery_task_runtime histogram
celery_task_runtime_bucket{name="add",le="0.005"} 2.0
celery_task_runtime_bucket{name="add",le="1.0"} 3.0
celery_task_runtime_bucket{name="add",le="+Inf"} 6.0
celery_task_runtime_sum{name="add"} 12.5
celery_task_runtime_count{name="add"} 6.0
`
	if got := string(text.Bytes()); got != want {
		t.Errorf("the text is\n%s\nexpected\n%s", got, want)
	}
}
