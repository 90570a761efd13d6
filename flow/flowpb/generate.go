package flowpb

//go:generate go run -C ../../tools ./protogen ../flow/flowpb/flow.proto
