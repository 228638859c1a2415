/** How many publishers and advertisers stand behind so many publications and campaigns, and which. */
const PUBLISHERS_PER_PUBLICATION = 0.87;
const ADVERTISERS_PER_CAMPAIGN = 0.72;

export function publisherOf(publication: number): number {
  return Math.floor(publication * PUBLISHERS_PER_PUBLICATION);
}

export function publisherCount(publications: number): number {
  return publisherOf(publications - 1) + 1;
}

export function advertiserOf(campaign: number): number {
  return Math.floor(campaign * ADVERTISERS_PER_CAMPAIGN);
}

export function advertiserCount(campaigns: number): number {
  return advertiserOf(campaigns - 1) + 1;
}
