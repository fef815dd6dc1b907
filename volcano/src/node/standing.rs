//! What a volcano can tell an administrator about the network.
