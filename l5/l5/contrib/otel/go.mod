module github.com/zhiyun-ops/zhiyun/l5/contrib/otel

go 1.26.8

require (
	github.com/zhiyun-ops/zhiyun v0.0.0
	go.opentelemetry.io/otel v1.47.0
	go.opentelemetry.io/otel/metric v1.47.0
	go.opentelemetry.io/otel/sdk v1.47.0
	go.opentelemetry.io/otel/sdk/metric v1.47.0
	go.opentelemetry.io/otel/trace v1.47.0
)

replace github.com/zhiyun-ops/zhiyun => ../../..
