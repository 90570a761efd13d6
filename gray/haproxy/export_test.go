package haproxy

// Parse reads the answer to "show servers state".
var Parse = parse
