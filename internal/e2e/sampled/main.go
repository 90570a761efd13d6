// Command sampled is the sample module as a binary of its own: a package of it is unpacked faster than one of the whole zhiyun.
package main

import (
	"os"

	"github.com/zhiyun-ops/zhiyun/internal/sample"
)

func main() { os.Exit(sample.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr)) }
