package dev

// AddressesOn is the plan for another system.
var AddressesOn = addresses
