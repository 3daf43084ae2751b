//! The matches of all rules, in the order of their precedence, found by the path.

use std::collections::HashMap;
use std::sync::Arc;

use regex::bytes::Regex;

use super::condition::{Conditions, expression};
use super::path::canonical;
use super::{Matching, PathMatch, Route};
use crate::request::RequestView;

/// Matches by their kinds of paths. An exact path has precedence over expressions, of which the longest comes first, then come prefixes,
/// of which the longest comes first; methods of any service are a little longer than no prefix.
#[derive(Debug, Default)]
pub(super) struct Table {
    exact: HashMap<Box<str>, Vec<Candidate>>,
    expressions: Vec<(Regex, Candidate)>,
    /// Path elements from the root, which is the first.
    nodes: Vec<Node>,
}

/// A match, and whose it is.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Position of the route.
    pub(super) route: usize,
    /// Position of the rule in it.
    pub(super) rule: usize,
    /// The last of two elements of the path.
    last: Option<Box<str>>,
    conditions: Conditions,
    prefix: Box<str>,
}

/// A path by its elements.
#[derive(Debug, Default)]
struct Node {
    candidates: Vec<Candidate>,
    children: HashMap<Box<str>, usize>,
    /// The nearest one above it that has candidates.
    above: Option<usize>,
}

impl Candidate {
    /// The prefix by which it matches, without a slash at its end.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn admits(&self, request: RequestView<'_>, method: &str, path: &str) -> bool {
        let is_last = |last: &str| {
            let elements = path.strip_prefix('/').and_then(|path| path.split_once('/'));
            elements.is_some_and(|(_, found)| found == last)
        };
        self.last.as_deref().is_none_or(is_last) && self.conditions.admit(request, method)
    }
}

impl Table {
    /// Arranges the matches of these routes.
    pub(super) fn new(routes: &[Arc<Route>]) -> Self {
        let mut table = Self { nodes: vec![Node::default()], ..Self::default() };
        let mut order: Vec<usize> = (0..routes.len()).collect();
        order.sort_by_key(|&route| (routes[route].created, routes[route].name.as_str()));
        let everything = [Matching::default()];
        // In this order equal ones stay.
        for route in order {
            for (rule, stated) in routes[route].rules.iter().enumerate() {
                let matches = if stated.matches.is_empty() { &everything[..] } else { &stated.matches };
                matches.iter().for_each(|matching| table.add(route, rule, matching));
            }
        }
        table.sort();
        table
    }

    fn add(&mut self, route: usize, rule: usize, matching: &Matching) {
        let conditions = Conditions::new(matching);
        let mut candidate = Candidate { route, rule, last: None, conditions, prefix: "".into() };
        match &matching.path {
            PathMatch::Exact(path) => {
                self.exact.entry(canonical(path).into()).or_default().push(candidate);
            }
            PathMatch::Prefix(path) => {
                let path = canonical(path);
                let path = path.trim_end_matches('/');
                candidate.prefix = path.into();
                let node = self.node(path);
                self.nodes[node].candidates.push(candidate);
            }
            PathMatch::Expression(text) => match expression(text) {
                Some(expression) => self.expressions.push((expression, candidate)),
                None => {
                    tracing::warn!(expression = text, "a route has an expression that cannot be compiled")
                }
            },
            PathMatch::Method(method) => {
                candidate.last = Some(method.as_str().into());
                self.nodes[0].candidates.push(candidate);
            }
        }
    }

    /// The node of a path, which is made where there is none.
    fn node(&mut self, path: &str) -> usize {
        path.split('/').skip(1).fold(0, |at, element| {
            if let Some(&child) = self.nodes[at].children.get(element) {
                return child;
            }
            let child = self.nodes.len();
            self.nodes.push(Node::default());
            self.nodes[at].children.insert(element.into(), child);
            child
        })
    }

    fn sort(&mut self) {
        let rank = |candidate: &Candidate| {
            let last = candidate.last.as_deref().map_or(0, str::len);
            std::cmp::Reverse((last, candidate.conditions.rank()))
        };
        self.exact.values_mut().for_each(|candidates| candidates.sort_by_key(rank));
        self.nodes.iter_mut().for_each(|node| node.candidates.sort_by_key(rank));
        self.expressions.sort_by_key(|(expression, candidate)| {
            (std::cmp::Reverse(expression.as_str().len()), rank(candidate))
        });
        // A child comes behind its parent.
        for at in 0..self.nodes.len() {
            let is_empty = self.nodes[at].candidates.is_empty();
            let nearest = if is_empty { self.nodes[at].above } else { Some(at) };
            let children: Vec<usize> = self.nodes[at].children.values().copied().collect();
            children.into_iter().for_each(|child| self.nodes[child].above = nearest);
        }
    }

    /// Finds the match of a request that has precedence, as if it had this method.
    pub(super) fn find(&self, request: RequestView<'_>, method: &str) -> Option<&Candidate> {
        let path = canonical(request.path());
        let first = |candidates: &'_ [Candidate]| {
            candidates.iter().position(|candidate| candidate.admits(request, method, &path))
        };
        if let Some(candidates) = self.exact.get(&*path)
            && let Some(at) = first(candidates)
        {
            return candidates.get(at);
        }
        let by_expression = self.expressions.iter().find(|(expression, candidate)| {
            expression.is_match(path.as_bytes()) && candidate.admits(request, method, &path)
        });
        if let Some((_, candidate)) = by_expression {
            return Some(candidate);
        }
        let mut at = Some(self.deepest(&path));
        while let Some(node) = at.and_then(|at| self.nodes.get(at)) {
            if let Some(at) = first(&node.candidates) {
                return node.candidates.get(at);
            }
            at = node.above;
        }
        None
    }

    /// The node of the longest beginning of this path that has one.
    fn deepest(&self, path: &str) -> usize {
        let mut at = 0;
        if path.starts_with('/') {
            for element in path.split('/').skip(1) {
                match self.nodes[at].children.get(element) {
                    Some(&child) => at = child,
                    None => break,
                }
            }
        }
        at
    }
}
